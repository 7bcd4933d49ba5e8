"""Reconstruct and recognise a class's images from its means alone, at several release ratios.

    python experiments/reconstruction.py -o results/privacy/reconstruction.json

A class of n images of d numbers sends T means of r numbers, in float16, and nothing else. The
release ratio is T r / (n d), numbers released over numbers held. Two attacks, on one class:

    membership       m_t - mu_t, the means less those of other images of the class, times the
                     candidate's v_t(x) - mu_t, summed over steps; and the same whitened by the
                     covariance of the other images (the likelihood ratio of Gaussian embeddings)
    reconstruction   Adam on the pixels of n images, so that their means match; every step's
                     network is used, with a prior of small total variation, and pixels in 0 .. 1

The attacker knows the plan, the class and n, and has other images of the same class. An image of
the class counts as recovered if, among it, all members and as many others, none is nearer to its
nearest reconstruction. Cells that the output contains are not repeated.

References: J. Geiping et al., "Inverting gradients", NeurIPS 2020 (total variation). N. Homer et
al., "Resolving individuals contributing trace amounts of DNA to highly complex mixtures", PLoS
Genetics 2008 (membership from means).
"""

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Float64
from sklearn.metrics import roc_auc_score
from torch import Tensor

from collabdm.data.sources import load
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet, as_float
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import Embedding, plan_embedding
from collabdm.planning.make import plan_for
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions

SIDE = 16
CLASS_SIZES = (20, 50, 100, 200, 400, 800)
RATIOS = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)
LARGEST = max(CLASS_SIZES)
MOST_STEPS = 400  # of the attack on membership, whose cost grows with the steps
MOST_GROUPS = 8  # disjoint groups of members, over which the membership figures are averaged

STEPS_PER_ITERATION, RATE, TV_WEIGHT = 8, 0.05, 0.001


@dataclass(frozen=True)
class Setting:
    """One class of a data set: its members, as many other images, and the attacker's own."""

    name: str
    plan: Plan
    members: ImageSet
    others: ImageSet
    reference: ImageSet

    def steps(self, n: int, ratio: float) -> int:
        """The steps of a release ratio, at least one."""
        return max(1, round(ratio * n * self.numbers / self.width))

    @property
    def numbers(self) -> int:
        """The numbers of one image, d."""
        return math.prod(self.plan.image.shape)

    @property
    def width(self) -> int:
        """The numbers of one mean, r."""
        return plan_embedding(self.plan, Compute()).sketched_width


def read_setting(name: str, y: int, seed: int) -> Setting:
    """Read a class in reduced size, and divide it."""
    data = load(name, "train", side=SIDE)
    network = {"width": 32, "depth": 2}
    plan = plan_for(data, seed=seed, pae=1, batch=None, network=network, local={"method": "none"})

    index = data.of_class(y)
    index = index[Stream.of(seed, Purpose.DATA).permutation(len(index))]
    parts = [data.subset(index[k * LARGEST : (k + 1) * LARGEST]) for k in range(3)]
    return Setting(name, plan, *parts)


def embeddings(
    embedding: Embedding, data: ImageSet, steps: int
) -> Iterator[tuple[int, Float32[Tensor, "n r"]]]:
    """Yield each step's number, and the embeddings of all images."""
    x = data.images
    for t in range(steps):
        with torch.no_grad():
            at = embedding.at(t)
            pixels = embedding.geometry.normalisation.apply(x)
            yield t, at.sketched(at.values(pixels, data.labels))


# --- membership ----------------------------------------------------------------------------------


def membership_cells(setting: Setting) -> list[dict[str, Any]]:
    """Attack the membership at every class size and ratio, in one pass over the steps."""
    wanted = defaultdict(list)
    for n in CLASS_SIZES:
        for ratio in RATIOS:
            if (steps := setting.steps(n, ratio)) <= MOST_STEPS:
                wanted[steps].append((n, ratio))

    candidates = torch.cat([setting.members.images, setting.others.images])
    images = torch.cat([setting.reference.images, candidates])
    labels = setting.members.labels[:1].expand(len(images)).clone()
    everything = ImageSet(images, labels, setting.plan.classes)

    sums = GramSums(len(setting.reference))
    embedding = plan_embedding(setting.plan, Compute())
    cells = []

    for t, v in embeddings(embedding, everything, max(wanted)):
        sums.add(v)
        for n, ratio in wanted.get(t + 1, ()):
            row = {"data": setting.name, "n": n, "ratio": ratio, "steps": t + 1}
            cells.append(row | sums.figures(n))
            print(cells[-1], flush=True)
    return cells


class GramSums:
    """Inner products over all steps so far, from which every statistic follows.

    The rows are the attacker's own images, then the members, then as many others; the means of
    groups of members are computed in float16, as they are sent.
    """

    def __init__(self, reference: int) -> None:
        self._own = reference
        self._own_own: Tensor = torch.zeros(())
        self._candidates_own: Tensor = torch.zeros(())
        self._means_candidates: dict[tuple[int, int], Tensor] = {}
        self._means_own: dict[tuple[int, int], Tensor] = {}

    def add(self, v: Float32[Tensor, "n r"]) -> None:
        """Add a step's embeddings."""
        centre = v[: self._own].mean(0)
        own, candidates = v[: self._own] - centre, v[self._own :] - centre
        self._own_own = self._own_own + (own @ own.T).double()
        self._candidates_own = self._candidates_own + (candidates @ own.T).double()

        for n in CLASS_SIZES:
            for group in range(min(MOST_GROUPS, LARGEST // n)):
                start = self._own + group * n
                mean = v[start : start + n].mean(0).half().float() - centre
                key = (n, group)
                self._means_candidates[key] = (
                    self._means_candidates.get(key, 0) + (candidates @ mean).double()
                )
                self._means_own[key] = self._means_own.get(key, 0) + (own @ mean).double()

    def figures(self, n: int) -> dict[str, Any]:
        """The AUC, and true positives at 1 % false ones, of both statistics: means over groups."""
        eye = torch.eye(self._own, dtype=torch.float64)
        ridge = self._own_own.trace() / self._own
        inverse = torch.linalg.inv(self._own_own + ridge * eye)

        plain, whitened = [], []
        groups = min(MOST_GROUPS, LARGEST // n)
        for group in range(groups):
            products = self._means_candidates[n, group]
            correction = self._candidates_own @ (inverse @ self._means_own[n, group])
            members = slice(group * n, (group + 1) * n)
            plain.append(_figures(products, members))
            whitened.append(_figures(products - correction, members))

        names = ("auc", "tpr_at_1_percent")
        row: dict[str, Any] = {"groups": groups, "members": n, "others": LARGEST}
        for name, values in (("plain", plain), ("whitened", whitened)):
            table = torch.tensor(values)
            row[name] = dict(zip(names, table.mean(0).tolist(), strict=True))
            if groups > 1:
                error = (table.std(0) / groups**0.5).tolist()
                row[name] |= {f"{k}_standard_error": e for k, e in zip(names, error, strict=True)}
        return row


def _figures(scores: Float64[Tensor, " m"], members: slice) -> tuple[float, float]:
    """The AUC, and the true positives at 1 % false ones, of one group of members."""
    own, others = scores[members], scores[LARGEST:]
    threshold = others.quantile(0.99)
    return auc(own, others), float((own > threshold).double().mean())


def auc(members: Tensor, others: Tensor) -> float:
    """The probability that a member scores higher than another image."""
    truth = torch.cat([torch.ones(len(members)), torch.zeros(len(others))])
    return float(roc_auc_score(truth.numpy(), torch.cat([members, others]).numpy()))


# --- reconstruction ------------------------------------------------------------------------------


def reconstruction_cell(setting: Setting, n: int, ratio: float, passes: int) -> dict[str, Any]:
    """Reconstruct n images from their means, and compare the results with all images."""
    steps, started = setting.steps(n, ratio), time.monotonic()
    members = setting.members.subset(torch.arange(n))
    embedding = plan_embedding(setting.plan, Compute())
    means = torch.stack([v.mean(0).half().float() for _, v in embeddings(embedding, members, steps)])
    others = embeddings(embedding, setting.reference, steps)
    scale = torch.tensor([float(v.var(0).sum()) for _, v in others])

    iterations = max(200, passes // (n * min(steps, STEPS_PER_ITERATION)))
    found, misfit = reconstruct(setting, embedding, means, scale, n, iterations)
    row = {"data": setting.name, "n": n, "ratio": ratio, "steps": steps, "iterations": iterations}
    row |= compare(found, setting, n) | {"misfit": misfit}
    return row | {"seconds": round(time.monotonic() - started, 1)}


def reconstruct(
    setting: Setting,
    embedding: Embedding,
    means: Float32[Tensor, "T r"],
    scale: Float32[Tensor, " T"],
    n: int,
    iterations: int,
) -> tuple[Float32[Tensor, "n c h w"], float]:
    """Match the means by Adam on the pixels; returns the images and the relative misfit."""
    stream = Stream.of(setting.plan.seed, Purpose.BASELINE)
    start = as_float(setting.reference.images).mean(0, keepdim=True)
    noise = stream.normals(n, *setting.plan.image.shape)
    x = (start + 0.2 * noise).clamp(0, 1).requires_grad_()
    labels = setting.members.labels[:n]
    optimizer = torch.optim.Adam([x], lr=RATE)
    order: list[int] = []

    for i in range(iterations):
        if len(order) < STEPS_PER_ITERATION:
            order += stream.permutation(len(means)).tolist()
        batch, order = order[:STEPS_PER_ITERATION], order[STEPS_PER_ITERATION:]
        if len(means) <= STEPS_PER_ITERATION:
            batch = list(range(len(means)))

        progress = i / iterations
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * progress))
        optimizer.zero_grad()
        (TV_WEIGHT * (1 - progress) * variation(x)).backward()

        misfit = 0.0
        for t in batch:
            values = embedding.at(t).values(embedding.geometry.normalisation.apply(x), labels)
            loss = n * (values.mean(0) - means[t]).square().sum() / scale[t] / len(batch)
            loss.backward()
            misfit += float(loss.detach())

        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)

    return x.detach(), misfit


def variation(x: Float32[Tensor, "n c h w"]) -> Float32[Tensor, ""]:
    """The total variation, summed over images and averaged over pixels."""
    across, down = (x[..., 1:] - x[..., :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
    return (across.mean((1, 2, 3)) + down.mean((1, 2, 3))).sum()


def compare(found: Float32[Tensor, "n c h w"], setting: Setting, n: int) -> dict[str, Any]:
    """Compare reconstructions with members and as many others, by root-mean-square distance."""
    pool = torch.cat([setting.members.images[:n], setting.others.images])
    pixels = as_float(pool).flatten(1)
    distances = torch.cdist(pixels, found.flatten(1)) / pixels.shape[1] ** 0.5

    nearest, of = distances.min(1)  # for each image of the pool, its nearest reconstruction
    first = distances.argmin(0)[of] == torch.arange(len(pool))
    decibels = -20 * nearest.clamp_min(1e-6).log10()

    return {
        "others": len(setting.others),
        "auc": auc(-nearest[:n], -nearest[n:]),
        "recovered": float(first[:n].double().mean()),
        "recovered_others": float(first[n:].double().mean()),
        "psnr": quartiles(decibels[:n]),
        "psnr_others": quartiles(decibels[n:]),
    }


def quartiles(values: Tensor) -> list[float]:
    """Minimum, quartiles and maximum, rounded."""
    points = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    return [round(value, 2) for value in values.float().quantile(points).tolist()]


# --- the file ------------------------------------------------------------------------------------


def main() -> None:
    """Compute the missing cells, in the order of the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["fashion_mnist", "cifar10"])
    parser.add_argument("--sizes", nargs="*", type=int, default=CLASS_SIZES)
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--label", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--passes", type=int, default=750_000, help="images through networks")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)

    stored = {"membership": [], "reconstruction": []}
    if options.output.exists():
        stored |= json.loads(options.output.read_text())
    stored["settings"] = {"side": SIDE, "width": 512, "label": options.label, "seed": options.seed}
    stored["versions"] = versions()

    for name in options.data:
        setting = read_setting(name, options.label, options.seed)
        if not any(cell["data"] == name for cell in stored["membership"]):
            stored["membership"] += membership_cells(setting)
            write(stored, options.output)

        for n in options.sizes:
            for ratio in options.ratios:
                key = {"data": name, "n": n, "ratio": ratio, "passes": options.passes}
                if any(key.items() <= cell.items() for cell in stored["reconstruction"]):
                    continue
                cell = reconstruction_cell(setting, n, ratio, options.passes)
                stored["reconstruction"].append(key | cell)
                print(stored["reconstruction"][-1], flush=True)
                write(stored, options.output)


def write(stored: dict[str, Any], output: Path) -> None:
    """Write the file."""
    atomic_write(output, (json.dumps(stored, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
