"""FedAvg: R rounds of local training and averaging, the standard baseline for comparing bytes sent.

In each of R rounds,

    site k     theta_k <- theta, which is then trained by SGD on the site's n_k images
    server     theta <- sum_k n_k theta_k / sum_k n_k

In every round each site receives the network and sends it back, which costs 2 R times the bytes of
the network; the sites of CollabDM send only once. Momentum is reset every round.

Reference: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-efficient
learning of deep networks from decentralized data", AISTATS 2017.
"""

from collections.abc import Sequence

import torch

from collabdm.checkpoint import Checkpoint
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import DistilledModel, Weights
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.matching.weights import float_weights, load_weights
from collabdm.methods.base import Traffic, check_answer, plan_options
from collabdm.methods.local_training import LocalTask, LocalTraining, train_locally
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream, derive
from collabdm.version import versions


class FedAvg(FrozenModel):
    """The options: the number of rounds, and how each site trains in a round."""

    rounds: Positive = 20
    local: LocalTraining = LocalTraining(epochs=1, batch=64, momentum=0.0, learning_rate=0.05)


def run_rounds(
    plan: Plan, sites: dict[str, ImageSet], context: RunContext = RunContext()
) -> tuple[DistilledModel, Traffic]:
    """Run all rounds, with every site.

    Args:
        plan: the plan, with method fedavg.
        sites: the images of each site, by name.
        context: device, progress and checkpoints.

    Returns:
        The network, and the traffic of the rounds.

    Raises:
        DataError: a site's data does not fit the plan.
        PlanError: a site's name does not fit the plan, or a setting does not fit the method.
    """
    for name, data in sites.items():
        check_answer(plan, data, name)
    if plan.fraction != 1:
        raise PlanError(f"`fraction` should be 1 for method {plan.method}; found {plan.fraction}")

    rounds = plan_options(plan, FedAvg).rounds
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(derive(plan.seed, "fedavg"), Purpose.NETWORK))
    start = context.resume or Checkpoint(0, float_weights(network))
    weights = dict(start.tensors)

    for r in range(start.done, rounds):
        weights = _round(plan, sites, network, weights, r, context)
        context.keep(Checkpoint(r + 1, weights))
        context.report(Progress(Stage.ROUNDS, r + 1, rounds))

    counts = {name: data.counts().tolist() for name, data in sites.items()}
    model = DistilledModel(weights, plan.network, plan, counts, plan.method, versions())
    each = rounds * sum(value.nbytes for value in weights.values())
    return model, Traffic(rounds, dict.fromkeys(sites, each), dict.fromkeys(sites, each))


def average(networks: Sequence[Weights], counts: Sequence[int]) -> Weights:
    """Average the sites' weights, weighted by their numbers of images."""
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    sums = {
        name: sum(
            share * weights[name].double() for share, weights in zip(shares, networks, strict=True)
        )
        for name in networks[0]
    }
    return {name: torch.as_tensor(value).float() for name, value in sums.items()}


def _round(
    plan: Plan,
    sites: dict[str, ImageSet],
    network: Network,
    weights: Weights,
    r: int,
    context: RunContext,
) -> Weights:
    """Run round r: train from `weights` at every site, and return the average of the results."""
    local = plan_options(plan, FedAvg).local
    trained = []

    for name, data in sites.items():
        load_weights(network, weights)
        seed = derive(plan.seed, "site", name)
        task = LocalTask(network, plan.network, data, plan, seed, first_epoch=r * local.epochs)
        train_locally(task, local, RunContext(context.compute))
        trained.append(float_weights(network))

    return average(trained, [len(data) for data in sites.values()])
