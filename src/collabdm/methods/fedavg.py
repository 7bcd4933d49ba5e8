"""FedAvg: R rounds of local training and averaging, the familiar yardstick on the same axis of bytes.

    server     theta <- sum_k n_k theta_k / sum_k n_k,   r = 1 .. R
    site k     theta_k <- theta, then E epochs of SGD on D_k

In every round each site is sent the network and sends it back: 2 R times its bytes, where CollabDM's sites send
once. `train_locally` is the site's part; other methods whose sites train a network use it too.

Reference: B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-efficient learning of
deep networks from decentralized data", AISTATS 2017.
"""

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from collabdm.augment import Operation, augment, draw
from collabdm.compute import Compute
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching import State
from collabdm.methods.answers import Traffic, check_answer
from collabdm.methods.collabdm import Run
from collabdm.networks import Network, build, seed_weights
from collabdm.planning import options_of
from collabdm.protocol import ImageSpec, Part, Plan, Positive
from collabdm.seeds import Purpose, Stream, derive
from collabdm.version import versions
from collabdm.weights import DistilledModel, Weights, load_weights, weights_of

MOVES: tuple[Operation, ...] = ("crop", "flip")  # what local training augments with, as far as the plan allows


class LocalTraining(Part):
    """SGD at a site, with a constant learning rate."""

    epochs: Positive = 200
    batch: Positive = 128
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0


class FedAvg(Part):
    """Settings: `rounds`, and what a site does in each."""

    rounds: Positive = 20
    local: LocalTraining = LocalTraining(epochs=1, batch=64, momentum=0.0, learning_rate=0.05)


def train_locally(
    network: Network,
    data: ImageSet,
    image: ImageSpec,
    local: LocalTraining,
    moves: tuple[Operation, ...],
    stream: Stream,
    compute: Compute,
    on_epoch: Callable[[int], None] = lambda done: None,
) -> Network:
    """SGD from the network's own weights, every image once in each epoch; in place, and left in evaluation mode."""
    device = compute.device
    network.to(device).train()
    images, labels = data.images.to(device), data.labels.to(device)
    optimiser = torch.optim.SGD(
        network.parameters(), local.learning_rate, local.momentum, weight_decay=local.weight_decay
    )
    for epoch in range(local.epochs):
        for index in stream.permutation(len(data)).split(local.batch):
            x = image.normalisation.apply(images[index.to(device)])
            if moves:
                x = augment(x, draw(moves, len(x), image.side, stream).to(x.device))
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=compute.precision == "bfloat16"):
                logits = network(x)
            optimiser.zero_grad()
            F.cross_entropy(logits.float(), labels[index.to(device)]).backward()
            optimiser.step()
        on_epoch(epoch + 1)
    return network.eval()


def moves_of(plan: Plan) -> tuple[Operation, ...]:
    """Crop and flip, as far as the plan allows them."""
    return tuple(move for move in MOVES if move in plan.augment)


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
            stream = Stream.of(derive(plan.seed, "site", name), Purpose.TRAINING, r)
            train_locally(network, data, plan.image, options.local, moves_of(plan), stream, run.compute)
            answers.append(weights_of(network))
        weights = average(answers, [len(data) for data in sites.values()])
        run.keep(State(r + 1, torch.zeros(0, *plan.image.shape), weights))
        run.progress("rounds", r + 1, options.rounds)
    held = {name: data.counts().tolist() for name, data in sites.items()}
    made = DistilledModel(weights, plan.network, plan, held, plan.method, versions())
    each = options.rounds * sum(value.nbytes for value in weights.values())
    return made, Traffic(options.rounds, dict.fromkeys(sites, each), dict.fromkeys(sites, each))
