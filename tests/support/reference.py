"""Algorithm 1 in plain loops: step by step, class by class, image by image. Slow, to be read beside the paper."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from collabdm.documents.distillation import Matching
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.matching.augment import augment, draw
from collabdm.matching.embedding import Seeds
from collabdm.matching.networks import build, seed_weights
from collabdm.seeds import Purpose, Stream, derive, participants

Means = dict[tuple[int, int], Tensor]  # (t, y) -> L_t^y
Sets = dict[int, list[Tensor]]  # y -> images, each (channels, side, side), in network units


def plan_seeds(plan: Plan) -> Seeds:
    return Seeds(plan.seed, Purpose.WEIGHTS, Purpose.AUGMENT)


def site_seeds(plan: Plan, site: str) -> Seeds:
    return Seeds(derive(plan.seed, "site", site), Purpose.LOCAL_WEIGHTS, Purpose.LOCAL_AUGMENT)


class Psi:
    """psi_{a_t} of one augmented image of class y."""

    def __init__(self, plan: Plan, seeds: Seeds, t: int) -> None:
        self.network = build(plan.network, plan.image.shape, len(plan.classes))
        seed_weights(self.network, Stream.of(seeds.seed, seeds.weights, t))
        stream = Stream.of(seeds.seed, seeds.augment, t)
        self.draws = draw(plan.augment, len(plan.classes), plan.image.side, stream)

    def __call__(self, image: Tensor, y: int) -> Tensor:
        return self.network.embed(augment(image[None], self.draws.rows(torch.tensor([y]))))[0]


def in_network_units(plan: Plan, pixels: Tensor) -> Tensor:
    channels = []
    for c in range(plan.image.channels):
        channels.append((pixels[c].float() / 255 - plan.image.mean[c]) / plan.image.std[c])
    return torch.stack(channels)


def sketch(plan: Plan, t: int, v: Tensor) -> Tensor:
    if plan.sketch is None or plan.sketch >= len(v):
        return v
    signs = Stream.of(plan.seed, Purpose.SKETCH, t).signs(len(v), plan.sketch)
    return signs.T @ v / math.sqrt(plan.sketch)


def mean(vectors: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(vectors[0])
    for v in vectors:
        total = total + v
    return total / len(vectors)


def deviation(vectors: Sequence[Tensor]) -> Tensor:
    centre = mean(vectors)
    return (mean([(v - centre) ** 2 for v in vectors]) + 1e-12).sqrt()


def batches(
    data: ImageSet, seed: int, purpose: Purpose, t: int, size: int | None
) -> dict[int, list[Tensor]]:
    """D_t^y: of each class `size` images in an order drawn for it, all of them where there are no more."""
    stream, chosen = Stream.of(seed, purpose, t), {}
    for y in range(len(data.classes)):
        own = [
            image
            for image, label in zip(data.images, data.labels.tolist(), strict=True)
            if label == y
        ]
        if size is not None and size < len(own):
            order = stream.permutation(len(own)).tolist()
            own = [own[i] for i in order[:size]]
        if own:
            chosen[y] = own
    return chosen


def client_means(plan: Plan, data: ImageSet, site: str, sites: Sequence[str]) -> Means:
    """ClientDM, lines 18-23."""
    means = {}
    seed = derive(plan.seed, "site", site)
    for t in range(plan.steps):
        if site not in participants(plan.seed, t, sites, plan.fraction):
            continue
        psi = Psi(plan, plan_seeds(plan), t)
        for y, batch in batches(data, seed, Purpose.BATCH, t, plan.batch).items():
            means[t, y] = mean([sketch(plan, t, psi(in_network_units(plan, x), y)) for x in batch])
    return means


def merged_means(plan: Plan, sent: dict[str, Means], data: dict[str, ImageSet]) -> Means:
    """Line 12, left: over the sites that sent (t, y), by the images they hold or each alike."""
    merged = {}
    for t in range(plan.steps):
        for y in range(len(plan.classes)):
            total, weights = torch.zeros(()), 0
            for site in sorted(sent):
                if (t, y) in sent[site]:
                    weight = (
                        data[site].labels.tolist().count(y) if plan.merging == "weighted" else 1
                    )
                    total, weights = total + weight * sent[site][t, y], weights + weight
            if weights:
                merged[t, y] = total / weights
    return merged


def mini_samples(image: Tensor, factor: int) -> list[Tensor]:
    """Partition and expand."""
    if factor == 1:
        return [image]
    side = image.shape[-1]
    small, out = side // factor, []
    for i in range(factor):
        for j in range(factor):
            tile = image[:, i * small : (i + 1) * small, j * small : (j + 1) * small]
            out.append(
                F.interpolate(tile[None], size=(side, side), mode="bilinear", align_corners=False)[
                    0
                ]
            )
    return out


def server_loss(plan: Plan, t: int, sets: Sets, targets: Means) -> Tensor:
    """Lines 10-13."""
    psi, total = Psi(plan, plan_seeds(plan), t), torch.zeros(())
    for y, images in sets.items():
        if (t, y) in targets:
            vectors = [
                sketch(plan, t, psi(s, y))
                for image in images
                for s in mini_samples(image, plan.pae)
            ]
            total = total + ((targets[t, y] - mean(vectors)) ** 2).sum()
    return total


def local_loss(plan: Plan, data: ImageSet, site: str, t: int, sets: Sets) -> Tensor:
    """Distribution matching with the site's own networks and images; with `spread`, of deviations too."""
    seeds, total = site_seeds(plan, site), torch.zeros(())
    psi = Psi(plan, seeds, t)
    for y, batch in batches(data, seeds.seed, Purpose.LOCAL_BATCH, t, plan.local.batch).items():
        real = [psi(in_network_units(plan, x), y).detach() for x in batch]
        synthetic = [psi(s, y) for image in sets[y] for s in mini_samples(image, plan.pae)]
        total = total + ((mean(real) - mean(synthetic)) ** 2).sum()
        if plan.local.matching.spread:
            spread = ((deviation(real) - deviation(synthetic)) ** 2).sum()
            total = total + plan.local.matching.spread * spread
    return total


def gradients(loss: Tensor, sets: Sets) -> Sets:
    flat = [image for images in sets.values() for image in images]
    values = iter(torch.autograd.grad(loss, flat, allow_unused=True))
    zero = torch.zeros_like(flat[0])
    return {
        y: [zero if (g := next(values)) is None else g for _ in images]
        for y, images in sets.items()
    }


def server_dm(plan: Plan, sets: Sets, targets: Means) -> Sets:
    """Lines 9-14, with momentum: velocity <- momentum velocity + gradient, S <- S - eta velocity."""
    matching: Matching = plan.refinement.matching
    velocity = {y: [torch.zeros_like(image) for image in images] for y, images in sets.items()}
    for t in range(plan.steps):
        sets = {
            y: [image.detach().requires_grad_() for image in images] for y, images in sets.items()
        }
        gradient = gradients(server_loss(plan, t, sets, targets), sets)
        for y, images in sets.items():
            for i, image in enumerate(images):
                velocity[y][i] = matching.momentum * velocity[y][i] + gradient[y][i]
                sets[y][i] = image.detach() - matching.learning_rate * velocity[y][i]
    return sets
