"""One malicious site of five: the accuracy of the set under each attack and each merging rule.

    python experiments/poisoning.py -o results/privacy/poisoning.json

Fashion-MNIST at 16 x 16 pixels, five sites of an even split, ipc 5, T = 30. The last site sends what
`ATTACKS` makes of its honest contribution. Every attack is distilled twice where this matters: as
the server did without checks ("unchecked"), and with them ("checked"): a contribution that the
server refuses is left out of the round. Cells that the output contains are not repeated.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from collabdm.data.partition import dirichlet, iid
from collabdm.data.sources import limit, load
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.contribution import CheckedContributions, Contribution, check_contribution
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.images import ImageSet
from collabdm.matching.class_statistics import encode
from collabdm.matching.compute import Compute
from collabdm.matching.robust_merging import deviations
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute, distill
from collabdm.methods.registry import contribution_spec
from collabdm.planning.make import plan_for
from collabdm.scoring.evaluation import EvaluationConfig, evaluate
from collabdm.scoring.training import RECIPES
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions

SITES, SIDE, SEEDS, TRIALS, EPOCHS = 5, 16, (0, 1, 2), 2, 100
RULES = ("weighted", "median", "trimmed")
LARGEST_CLASS = 2000  # images; a site of the even split has about 1,200
TEST_PER_CLASS = 300
NETWORK = {"width": 32, "depth": 2}
SETTINGS: dict[str, Any] = {
    "sites": SITES,
    "ipc": 5,
    "steps": 30,
    "network": NETWORK,
    "largest_class": LARGEST_CLASS,
    "local": {"steps": 20},
    "refinement": {"passes": 4},
}
CONTEXT = RunContext(Compute(compiled=False))


def with_means(sent: Contribution, means: torch.Tensor) -> Contribution:
    """Replace the means, encoded as in the contribution."""
    codes, scales = encode(means, sent.statistics.wire)
    return replace(sent, statistics=replace(sent.statistics, codes=codes, scales=scales))


def with_counts(sent: Contribution, totals: torch.Tensor) -> Contribution:
    """State other numbers of images."""
    counts = replace(sent.statistics, totals=totals, batch_counts=totals.clamp_max(256))
    return replace(sent, statistics=counts)


def with_swapped_labels(sent: Contribution) -> Contribution:
    """Give every class the means and the images of the next class."""
    images, n = sent.images, len(sent.images) // len(sent.images.classes)
    moved = ImageSet(images.images.roll(-n, 0), images.labels, images.classes)
    return replace(with_means(sent, sent.statistics.means().roll(-1, 1)), images=moved)


def with_black_images(sent: Contribution) -> Contribution:
    """Send black images, zero means, and more images than anybody has."""
    black = replace(sent, images=replace(sent.images, images=torch.zeros_like(sent.images.images)))
    zero = with_means(black, torch.zeros_like(sent.statistics.means()))
    return with_counts(zero, torch.full_like(sent.statistics.totals, 2**40))


ATTACKS: dict[str, Callable[[Contribution], Contribution]] = {
    "means at the largest finite float16": lambda sent: with_means(
        sent, torch.full_like(sent.statistics.means(), torch.finfo(torch.float16).max)
    ),
    "means x 100": lambda sent: with_means(sent, 100 * sent.statistics.means()),
    "means zero": lambda sent: with_means(sent, torch.zeros_like(sent.statistics.means())),
    "labels swapped": with_swapped_labels,
    "labels swapped, counts x 1e6": lambda sent: with_counts(
        with_swapped_labels(sent), sent.statistics.totals * 10**6
    ),
    "black images, means zero, counts 2^40": with_black_images,
}


class Unchecked(CheckedContributions):
    """Contributions that nobody checks."""

    def __init__(self, plan: Plan, sent: list[Contribution]) -> None:
        self.plan, self._sent = plan, {answer.site: answer for answer in sent}

    def __getitem__(self, site: str) -> Contribution:
        return self._sent[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sent)

    def __len__(self) -> int:
        return len(self._sent)


def refusal(plan: Plan, sent: Contribution) -> str:
    """State why the server refuses a contribution; empty if it does not."""
    try:
        check_contribution(contribution_spec(plan), sent)
    except DocumentError as error:
        return str(error)
    return ""


def distances(plan: Plan, sent: list[Contribution]) -> list[float | None]:
    """Measure each site's distance from the others."""
    found = deviations(plan, len(sent), lambda: (answer.statistics for answer in sent))
    return [None if d is None else round(d.distance, 3) for d in found]


def accuracy(plan: Plan, sent: list[Contribution], test: ImageSet, seed: int) -> float:
    """Distil a round without checks, and return the accuracy in percent."""
    outcome = distill(plan, Unchecked(plan, sent), CONTEXT)
    config = EvaluationConfig(
        (plan.network,), TRIALS, RECIPES["short"].model_copy(update={"epochs": EPOCHS}), seed
    )
    (score,) = evaluate(outcome, test, config, CONTEXT)
    return 100 * score.mean


def cells_of(seed: int, data: ImageSet, test: ImageSet, done: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the cells of a seed: one set for each case and rule, and the distances of the sites."""
    plans = {rule: plan_for(data, seed=seed, merging=rule, **SETTINGS) for rule in RULES}
    parts = iid(len(data), SITES, seed).sites(data)
    first = plans["weighted"]
    sent = [contribute(first, part, site, CONTEXT) for site, part in sorted(parts.items())]
    *honest, last = sent
    cases = {"honest": sent, "without the site": honest}
    cases |= {name: [*honest, attack(last)] for name, attack in ATTACKS.items()}

    for case, answers in cases.items():
        refused = refusal(first, answers[-1]) if case in ATTACKS else ""
        far = distances(first, answers)
        for rule, plan in plans.items():
            key = f"{seed} {case} {rule}"
            if key in done:
                continue
            own = [replace(answer, plan_digest=plan.digest) for answer in answers]
            yield {
                "key": key,
                "seed": seed,
                "case": case,
                "rule": rule,
                "unchecked": accuracy(plan, own, test, seed),
                "refused": refused,
                "distances": far,
            }


def uneven_distances(seed: int, data: ImageSet) -> dict[str, list[float | None]]:
    """Measure the distances of honest sites whose data differ, for the even split's limit."""
    found = {}
    for beta in (0.1, 0.5, 5.0):
        settings = SETTINGS | {"steps": 5, "local": {"method": "none"}}
        plan = plan_for(data, seed=seed, **settings)
        parts = dirichlet(data.labels, len(data.classes), SITES, beta, seed).sites(data)
        sent = [contribute(plan, part, site, CONTEXT) for site, part in sorted(parts.items())]
        found[str(beta)] = distances(plan, sent)
    return found


def summary(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Average over the seeds; a refused site's cell counts as the round without it."""
    value = {(c["case"], c["rule"], c["seed"]): c["unchecked"] for c in cells}
    rows = []
    for case in dict.fromkeys(c["case"] for c in cells):
        for rule in RULES:
            own = [c for c in cells if (c["case"], c["rule"]) == (case, rule)]
            if not own:
                continue
            without = [value.get(("without the site", rule, c["seed"])) for c in own]
            checked = [
                w if c["refused"] else c["unchecked"] for c, w in zip(own, without, strict=True)
            ]
            row = {"case": case, "rule": rule, "n": len(own)}
            row["refused"] = sum(bool(c["refused"]) for c in own)
            for name, values in (
                ("unchecked", [c["unchecked"] for c in own]),
                ("checked", checked),
            ):
                row[name] = round(statistics.fmean(values), 2)
                row[f"{name}_std"] = round(statistics.stdev(values), 2) if len(values) > 1 else 0.0
            row["largest_distance_of_the_site"] = max((c["distances"][-1] or 0) for c in own)
            rows.append(row)
    return rows


def main() -> None:
    """Run the missing cells."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    output = parser.parse_args().output
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)

    results: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {"cells": []}
    results |= {"settings": SETTINGS | {"trials": TRIALS, "epochs": EPOCHS}, "versions": versions()}

    def keep() -> None:
        results["summary"] = summary(results["cells"])
        atomic_write(output, (json.dumps(results, indent=1) + "\n").encode())

    data = load("fashion_mnist", side=SIDE)
    test = limit(
        load("fashion_mnist", "test", side=SIDE), TEST_PER_CLASS, Stream.of(0, Purpose.DATA)
    )
    for seed in SEEDS:
        done = {cell["key"] for cell in results["cells"]}
        for cell in cells_of(seed, data, test, done):
            results["cells"].append(cell)
            keep()
            print(cell["key"], f"{cell['unchecked']:.1f}", cell["refused"][:60], cell["distances"])
        results.setdefault("uneven", {})[str(seed)] = uneven_distances(seed, data)
        keep()


if __name__ == "__main__":
    main()
