"""Reconstruct and recognise a class's images from its means alone, at several release ratios.

    python experiments/reconstruction.py -o results/privacy/reconstruction.json

A class of n images of d numbers sends T means of r numbers, in float16, and nothing else. The
release ratio is T r / (n d), numbers released over numbers held. Two attacks (`lab.audit`), on one
class, by an attacker who knows the plan and n, and has other images of the class:

    membership       the means' inner product with a candidate's embeddings, plain and whitened,
                     for disjoint groups of n members
    reconstruction   gradient inversion from the means of all steps

Cells that the output contains are not repeated.
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
from torch import Tensor

from collabdm.data.sources import load
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet, pool
from collabdm.lab.audit.inversion import Target, decibels, invert, recovery
from collabdm.lab.audit.means import Products, embed_all
from collabdm.lab.audit.rates import Ranking
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_embedding
from collabdm.planning.make import plan_for
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions

SIDE = 16
CLASS_SIZES = (20, 50, 100, 200, 400, 800)
RATIOS = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)
LARGEST = max(CLASS_SIZES)
MOST_STEPS = 150  # of the attack on membership, which hardly depends on the number of steps
MOST_GROUPS = 8  # disjoint groups of members, over which the membership figures are averaged
FEWEST_ITERATIONS = 200
STEPS_AT_ONCE = 8  # of an iteration of the inversion


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
        width = plan_embedding(self.plan, Compute()).sketched_width
        return max(1, round(ratio * n * math.prod(self.plan.image.shape) / width))


def read_setting(name: str, y: int, seed: int) -> Setting:
    """Read a class in reduced size, and divide it."""
    data = load(name, "train", side=SIDE)
    network = {"width": 32, "depth": 2}
    plan = plan_for(data, seed=seed, pae=1, batch=None, network=network, local={"method": "none"})

    index = data.of_class(y)
    index = index[Stream.of(seed, Purpose.DATA).permutation(len(index))]
    parts = [data.subset(index[k * LARGEST : (k + 1) * LARGEST]) for k in range(3)]
    return Setting(name, plan, *parts)


# --- membership ----------------------------------------------------------------------------------


def membership_cells(setting: Setting) -> Iterator[dict[str, Any]]:
    """Attack the membership at every class size and ratio, in one pass over the steps."""
    wanted = defaultdict(list)
    for n in CLASS_SIZES:
        for ratio in RATIOS:
            if (steps := setting.steps(n, ratio)) <= MOST_STEPS:
                wanted[steps].append((n, ratio))

    groups = [(n, g) for n in CLASS_SIZES for g in range(min(MOST_GROUPS, LARGEST // n))]
    images = pool([setting.reference, setting.members, setting.others])
    embedding, products = plan_embedding(setting.plan, Compute()), Products()

    for t in range(max(wanted)):
        v = embed_all(embedding, t, images)
        reference, candidates = v[:LARGEST], v[LARGEST:]
        means = [candidates[g * n : (g + 1) * n].mean(0).half().float() for n, g in groups]
        products.add(reference, candidates, torch.stack(means))
        if t + 1 not in wanted:
            continue

        plain, whitened = products.scores()
        for n, ratio in wanted[t + 1]:
            row = {"data": setting.name, "n": n, "ratio": ratio, "steps": t + 1}
            at = [i for i, group in enumerate(groups) if group[0] == n]
            row |= {"groups": len(at), "members": n, "others": LARGEST}
            yield row | {"plain": figures(plain[at], n), "whitened": figures(whitened[at], n)}


def figures(scores: Tensor, n: int) -> dict[str, float]:
    """The AUC, and true positives at 1 % false ones: means over groups, and their errors."""
    rows = []
    for group, row in enumerate(scores):
        tested = torch.cat([row[group * n : (group + 1) * n], row[LARGEST:]])[None].float()
        used = (torch.arange(tested.shape[1]) < n)[None]
        ranking = Ranking(tested, used)
        rows.append((ranking.auc(), ranking.hits(0.01) / n))

    table, result = torch.tensor(rows), {}
    for column, name in enumerate(("auc", "tpr_at_1_percent")):
        result[name] = float(table[:, column].mean())
        if len(table) > 1:
            result[f"{name}_standard_error"] = float(table[:, column].std()) / len(table) ** 0.5
    return result


# --- reconstruction ------------------------------------------------------------------------------


def reconstruction_cell(setting: Setting, n: int, ratio: float, passes: int) -> dict[str, Any]:
    """Reconstruct n images from their means, and compare the results with all images."""
    steps, started = setting.steps(n, ratio), time.process_time()
    members = setting.members.subset(torch.arange(n))
    embedding = plan_embedding(setting.plan, Compute())
    means = [embed_all(embedding, t, members).mean(0).half().float() for t in range(steps)]

    iterations = max(FEWEST_ITERATIONS, passes // (n * min(steps, STEPS_AT_ONCE)))
    target = Target(embedding, list(range(steps)), torch.stack(means), n, setting.reference)
    found = invert(target, iterations, Stream.of(setting.plan.seed, Purpose.BASELINE))

    compared = recovery(found.images, members, setting.others)
    scores = -torch.cat([compared.distances, compared.other_distances])[None].float()
    used = (torch.arange(scores.shape[1]) < n)[None]
    return {
        "steps": steps,
        "iterations": iterations,
        "others": len(setting.others),
        "misfit": found.misfit,
        "auc": Ranking(scores, used).auc(),
        "recovered": float(compared.recovered.double().mean()),
        "recovered_others": float(compared.other_recovered.double().mean()),
        "psnr": quartiles(decibels(compared.distances)),
        "psnr_others": quartiles(decibels(compared.other_distances)),
        "cpu_seconds": round(time.process_time() - started, 1),
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
    parser.add_argument("--ratios", nargs="*", type=float, default=RATIOS)
    parser.add_argument("--label", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--passes", type=int, default=1_500_000, help="images through networks")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)

    stored: dict[str, Any] = {"membership": [], "reconstruction": []}
    if options.output.exists():
        stored |= json.loads(options.output.read_text())
    stored["settings"] = {"side": SIDE, "label": options.label, "seed": options.seed}
    stored["versions"] = versions()

    for name in options.data:
        setting = read_setting(name, options.label, options.seed)
        if not any(cell["data"] == name for cell in stored["membership"]):
            for cell in membership_cells(setting):
                stored["membership"].append(cell)
            write(stored, options.output)
        for n in options.sizes:
            for ratio in options.ratios:
                key = {"data": name, "n": n, "ratio": ratio, "passes": options.passes}
                if not any(key.items() <= cell.items() for cell in stored["reconstruction"]):
                    cell = key | reconstruction_cell(setting, n, ratio, options.passes)
                    stored["reconstruction"].append(cell)
                    write(stored, options.output)


def write(stored: dict[str, Any], output: Path) -> None:
    """Write the file."""
    atomic_write(output, (json.dumps(stored, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
