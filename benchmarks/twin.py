"""The plain-loop twin: a straightforward implementation of the algorithm, as in the authors' program.

Float32, not compiled; a new network object for every step, one forward pass for each class,
networks trained one after another through a DataLoader. It computes the same values as the package
(`speed.py` checks that first), so the two can be timed against each other.

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, Algorithm 1.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from collabdm.documents.distillation import Matching
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet, as_float
from collabdm.matching.augment import augment, draw, expand
from collabdm.matching.embedding import Sampling
from collabdm.matching.network_size import statistics_width
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.scoring.training import Recipe
from collabdm.seeds import Purpose, Stream


@dataclass(frozen=True)
class StepEmbedding:
    """The embedding of a step, without a sketch."""

    plan: Plan
    network: Network
    step: int

    @classmethod
    def of(cls, plan: Plan, step: int) -> "StepEmbedding":
        """The embedding of a step, with a new network."""
        network = build(plan.network, plan.image.shape, len(plan.classes))
        seed_weights(network, Stream.of(plan.seed, Purpose.WEIGHTS, step))
        return cls(plan, network, step)

    def values(self, x: Tensor, y: int) -> Tensor:
        """The embedding of images of class y, in network units."""
        plan, stream = self.plan, Stream.of(self.plan.seed, Purpose.AUGMENT, self.step)
        draws = draw(plan.augment, len(plan.classes), plan.image.side, stream)
        return self.network.embed(augment(x, draws.rows(torch.full((len(x),), y))))


def statistics(plan: Plan, data: ImageSet, index: list[Tensor], step: int) -> Tensor:
    """Lines 19-23 of Algorithm 1 for one step: class means of the chosen images, (classes, D).

    Args:
        plan: the plan.
        data: the images of a site.
        index: the positions of the chosen images, for each step.
        step: the step.

    Returns:
        The means; zero for a class without images.
    """
    embedding, means = StepEmbedding.of(plan, step), []

    for y in range(len(plan.classes)):
        chosen = index[step][data.labels[index[step]] == y]
        if len(chosen) == 0:
            means.append(torch.zeros(statistics_width(plan)))
            continue

        x = plan.image.normalisation.apply(data.images[chosen])
        with torch.no_grad():
            means.append(embedding.values(x, y).mean(0))

    return torch.stack(means)


def matching(plan: Plan, images: Tensor, labels: Tensor, means: Tensor, rule: Matching) -> Tensor:
    """Lines 9-14 of Algorithm 1: one pass over the steps.

    Args:
        plan: the plan.
        images: the images to start from, in network units.
        labels: their classes.
        means: the targets, (steps, classes, D).
        rule: learning rate and momentum.

    Returns:
        The images in network units.
    """
    images = images.clone().requires_grad_()
    optimizer = torch.optim.SGD([images], lr=rule.learning_rate, momentum=rule.momentum)

    for step in range(len(means)):
        embedding = StepEmbedding.of(plan, step % plan.steps)
        optimizer.zero_grad()
        for y in labels.unique().tolist():
            x = expand(images[labels == y], plan.pae)
            difference = embedding.values(x, y).mean(0) - means[step, y]
            difference.square().sum().backward()
        optimizer.step()

    return images.detach()


def training(plan: Plan, data: ImageSet, recipe: Recipe, seed: int) -> Network:
    """Train one network on one set.

    Args:
        plan: the plan, which states the network and the augmentation.
        data: the images to train on.
        recipe: epochs, batch and optimiser.
        seed: the seed of weights, batches and augmentation.

    Returns:
        The network, in evaluation mode.
    """
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(seed, Purpose.NETWORK))
    stream = Stream.of(seed, Purpose.TRAINING)
    optimizer = torch.optim.SGD(
        network.parameters(),
        recipe.learning_rate,
        recipe.momentum,
        weight_decay=recipe.weight_decay,
    )

    x = plan.image.normalisation.apply(as_float(data.images))
    order = torch.Generator().manual_seed(seed % 2**32)
    dataset = TensorDataset(x, data.labels)
    loader = DataLoader(dataset, recipe.batch, shuffle=True, generator=order)

    for _ in range(recipe.epochs):
        for batch, labels in loader:
            draws = draw(plan.augment, len(batch), plan.image.side, stream)
            loss = F.cross_entropy(network(augment(batch, draws)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return network.eval()


def round_and_score(plan: Plan, sites: list[ImageSet], test: ImageSet, recipe: Recipe) -> float:
    """A whole round, every site in turn, and the accuracy of one network.

    Args:
        plan: the plan.
        sites: the images of each site.
        test: the test images.
        recipe: the training of the network.

    Returns:
        The accuracy, a share of 1.
    """
    local = [local_images(plan, data) for data in sites]
    counts = [data.counts().float() for data in sites]
    sums = torch.zeros(plan.steps, len(plan.classes), statistics_width(plan))
    for data, count in zip(sites, counts, strict=True):
        sampling = Sampling(plan.seed, Purpose.BATCH, plan.batch)
        index = [sampling.picks(data, t) for t in range(plan.steps)]
        means = torch.stack([statistics(plan, data, index, t) for t in range(plan.steps)])
        sums += means * count[:, None]

    labels = torch.arange(len(plan.classes)).repeat_interleave(plan.ipc)
    start = first_images(plan, local)
    means = (sums / torch.stack(counts).sum(0)[:, None]).repeat(plan.refinement.passes, 1, 1)
    refined = matching(plan, start, labels, means, plan.refinement.matching)

    pixels = expand(plan.image.normalisation.invert(refined), plan.pae)
    distilled = ImageSet(pixels, labels.repeat_interleave(plan.pae**2), plan.classes)
    return accuracy(plan, training(plan, distilled, recipe, 0), test)


def local_images(plan: Plan, data: ImageSet) -> tuple[Tensor, Tensor]:
    """The local distillation of a site: images in network units, and their classes."""
    sampling = Sampling(plan.seed, Purpose.LOCAL_BATCH, plan.local.batch)
    index = [sampling.picks(data, i) for i in range(plan.local.steps)]
    labels = torch.nonzero(data.counts()).flatten().repeat_interleave(plan.local.images)
    images = torch.zeros(len(labels), *plan.image.shape)

    for i in range(plan.local.steps):
        means = statistics(plan, data, index, i)
        images = matching(plan, images, labels, means[None], plan.local.matching)
    return images, labels


def first_images(plan: Plan, local: list[tuple[Tensor, Tensor]]) -> Tensor:
    """`ipc` of the sites' images for each class, repeated where they are too few."""
    images = torch.cat([images for images, _ in local])
    labels = torch.cat([labels for _, labels in local])
    of_class = [images[labels == y] for y in range(len(plan.classes))]
    return torch.cat([own.repeat(plan.ipc, 1, 1, 1)[: plan.ipc] for own in of_class])


def accuracy(plan: Plan, network: Network, test: ImageSet) -> float:
    """Share of the test images whose largest logit is their class."""
    normalise = plan.image.normalisation.apply
    loader = DataLoader(TensorDataset(test.images, test.labels), 256)
    with torch.no_grad():
        correct = [(network(normalise(x)).argmax(1) == y).sum() for x, y in loader]
    return float(torch.stack(correct).sum()) / len(test)
