"""FedAvg: R rounds of local training and averaging, the familiar yardstick on the same axis of bytes.

    server     theta <- sum_k n_k theta_k / sum_k n_k,   r = 1 .. R
    site k     theta_k <- theta, then E epochs of SGD on D_k

In every round each site is sent the network and sends it back: 2 R times its bytes, where CollabDM's sites send
once. Momentum begins anew in every round.

Reference: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-efficient learning of
deep networks from decentralized data", AISTATS 2017.
"""

import torch

from collabdm.checkpoint import State
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import DistilledModel, Weights
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.networks import build, seed_weights
from collabdm.matching.weights import load_weights, weights_of
from collabdm.methods.base import Run, Traffic, check_answer, options_of
from collabdm.methods.local_training import LocalTask, LocalTraining, train_locally
from collabdm.seeds import Purpose, Stream, derive
from collabdm.version import versions


class FedAvg(FrozenModel):
    """Settings: `rounds`, and what a site does in each."""

    rounds: Positive = 20
    local: LocalTraining = LocalTraining(epochs=1, batch=64, momentum=0.0, learning_rate=0.05)


def average(weights: list[Weights], held: list[int]) -> Weights:
    """The mean of networks, weighted by images held."""
    shares = torch.tensor(held, dtype=torch.float64) / sum(held)
    sums = {
        name: sum(share * one[name].double() for share, one in zip(shares, weights, strict=True)) for name in weights[0]
    }
    return {name: torch.as_tensor(value).float() for name, value in sums.items()}


def converse(plan: Plan, sites: dict[str, ImageSet], run: Run = Run()) -> tuple[DistilledModel, Traffic]:
    """All rounds, with every site. Raises DataError or PlanError where data, names or plan do not fit."""
    for name, data in sites.items():
        check_answer(plan, data, name)
    options = options_of(plan.options, FedAvg)
    if plan.fraction != 1:
        raise PlanError(f"`fraction` should be 1 for method {plan.method}; found {plan.fraction}")
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(derive(plan.seed, "fedavg"), Purpose.NETWORK))
    weights = dict(run.resume.optimiser) if run.resume else weights_of(network)
    for r in range(run.resume.done if run.resume else 0, options.rounds):
        answers = []
        for name, data in sites.items():
            load_weights(network, weights)
            pupil = LocalTask(network, data, plan, derive(plan.seed, "site", name), r * options.local.epochs)
            train_locally(pupil, options.local, run.compute)
            answers.append(weights_of(network))
        weights = average(answers, [len(data) for data in sites.values()])
        run.keep(State(r + 1, torch.zeros(0, *plan.image.shape), weights))
        run.progress("rounds", r + 1, options.rounds)
    held = {name: data.counts().tolist() for name, data in sites.items()}
    made = DistilledModel(weights, plan.network, plan, held, plan.method, versions())
    each = options.rounds * sum(value.nbytes for value in weights.values())
    return made, Traffic(options.rounds, dict.fromkeys(sites, each), dict.fromkeys(sites, each))
