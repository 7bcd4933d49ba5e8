"""The plain-loop twin: the algorithm as a first program would do it, and as the authors' program is built.

Float32, not compiled; a new network object for every step, one forward pass for each class, networks trained one
after another through a DataLoader. It computes the same numbers as the package (`speed.py` asserts that
first), so that the two can be timed against each other.

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, Algorithm 1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from collabdm.documents.plan import Matching, Plan
from collabdm.images import ImageSet, as_float
from collabdm.matching.augment import augment, draw, expand
from collabdm.matching.embedding import Sampling
from collabdm.matching.network_size import statistics_width
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.scoring.training import Recipe
from collabdm.seeds import Purpose, Stream


def network_of(plan: Plan, step: int, weights: Purpose = Purpose.WEIGHTS) -> Network:
    """A new network with the weights of a step."""
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(plan.seed, weights, step))
    return network


def values(
    plan: Plan, network: Network, x: Tensor, step: int, y: int, purpose: Purpose = Purpose.AUGMENT
) -> Tensor:
    """The embedding of images of one class."""
    draws = draw(
        plan.augment, len(plan.classes), plan.image.side, Stream.of(plan.seed, purpose, step)
    )
    return network.embed(augment(x, draws.rows(torch.full((len(x),), y))))


def statistics(plan: Plan, data: ImageSet, index: list[Tensor], step: int) -> Tensor:
    """Lines 19 - 23 of Algorithm 1 for one step: class means of the chosen images, (classes, D)."""
    network, means = network_of(plan, step), []
    for y in range(len(plan.classes)):
        chosen = index[step][data.labels[index[step]] == y]
        if len(chosen) == 0:
            means.append(torch.zeros(statistics_width(plan)))
            continue
        x = plan.image.normalisation.apply(data.images[chosen])
        with torch.no_grad():
            means.append(values(plan, network, x, step, y).mean(0))
    return torch.stack(means)


def matching(plan: Plan, images: Tensor, labels: Tensor, means: Tensor, rule: Matching) -> Tensor:
    """Lines 9 - 14 of Algorithm 1: one pass over the steps; images in network units."""
    images = images.clone().requires_grad_()
    optimiser = torch.optim.SGD([images], lr=rule.learning_rate, momentum=rule.momentum)
    for step in range(len(means)):
        network = network_of(plan, step % plan.steps)
        optimiser.zero_grad()
        for y in labels.unique().tolist():
            x = expand(images[labels == y], plan.pae)
            loss = (
                (values(plan, network, x, step % plan.steps, y).mean(0) - means[step, y])
                .square()
                .sum()
            )
            loss.backward()
        optimiser.step()
    return images.detach()


def training(plan: Plan, data: ImageSet, recipe: Recipe, seed: int) -> Network:
    """One network trained on one set."""
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(seed, Purpose.NETWORK))
    stream = Stream.of(seed, Purpose.TRAINING)
    optimiser = torch.optim.SGD(
        network.parameters(),
        recipe.learning_rate,
        recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    x = plan.image.normalisation.apply(as_float(data.images))
    order = torch.Generator().manual_seed(seed % 2**32)
    loader = DataLoader(TensorDataset(x, data.labels), recipe.batch, shuffle=True, generator=order)
    for _ in range(recipe.epochs):
        for batch, labels in loader:
            draws = draw(plan.augment, len(batch), plan.image.side, stream)
            loss = F.cross_entropy(network(augment(batch, draws)), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return network.eval()


def round_and_score(plan: Plan, sites: list[ImageSet], test: ImageSet, recipe: Recipe) -> float:
    """A whole round, every site in turn, and the accuracy of one network."""
    start, sums, total = (
        [],
        torch.zeros(plan.steps, len(plan.classes), statistics_width(plan)),
        torch.zeros(len(plan.classes)),
    )
    for data in sites:
        local = Sampling(plan.seed, Purpose.LOCAL_BATCH, plan.local.batch)
        index = [local.picks(data, i) for i in range(plan.local.steps)]
        labels = torch.nonzero(data.counts()).flatten().repeat_interleave(plan.local.images)
        images = torch.zeros(len(labels), *plan.image.shape)
        for i in range(plan.local.steps):
            means = statistics(plan, data, index, i)
            images = matching(plan, images, labels, means[None], plan.local.matching)
        own = Sampling(plan.seed, Purpose.BATCH, plan.batch)
        index = [own.picks(data, t) for t in range(plan.steps)]
        held = data.counts().float()
        sums += (
            torch.stack([statistics(plan, data, index, t) for t in range(plan.steps)])
            * held[:, None]
        )
        total += held
        start.append((images, labels))
    labels = torch.arange(len(plan.classes)).repeat_interleave(plan.ipc)
    sent, of_class = torch.cat([x for x, _ in start]), torch.cat([y for _, y in start])
    images = torch.cat(
        [
            sent[of_class == y].repeat(plan.ipc, 1, 1, 1)[: plan.ipc]
            for y in range(len(plan.classes))
        ]
    )
    means = (sums / total[:, None]).repeat(plan.refinement.passes, 1, 1)
    images = plan.image.normalisation.invert(
        matching(plan, images, labels, means, plan.refinement.matching)
    )
    made = ImageSet(expand(images, plan.pae), labels.repeat_interleave(plan.pae**2), plan.classes)
    return accuracy(plan, training(plan, made, recipe, 0), test)


def accuracy(plan: Plan, network: Network, test: ImageSet) -> float:
    """Share of test images whose largest output is their class."""
    loader = DataLoader(TensorDataset(test.images, test.labels), 256)
    with torch.no_grad():
        hits = [
            (network(plan.image.normalisation.apply(x)).argmax(1) == y).sum() for x, y in loader
        ]
    return float(torch.stack(hits).sum()) / len(test)
