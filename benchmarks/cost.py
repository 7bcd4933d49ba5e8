"""What a round costs against T, batch, sites, ipc and image side: straight lines are expected.

    python benchmarks/cost.py -o results/speed/cost.json

One setting is varied at a time from the base (CIFAR-10's shapes, a ConvNet of width 32); every point is measured
n times and the axes take turns, so that a slow minute of the machine does not fall on one line alone.
"""

import argparse
import json
import statistics as summary
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from speed import machine

from collabdm.documents.contribution import Contribution
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.images import ImageSet
from collabdm.matching.compute import Compute, choose_compute
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute, distill
from collabdm.planning.make import make_plan
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions

BASE = {"T": 8, "batch": 64, "sites": 5, "ipc": 10, "side": 32}
#: axis: (loop that it drives, values)
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "T": ("statistics", (4, 8, 16, 32)),
    "batch": ("statistics", (16, 32, 64, 128, 256)),
    "side": ("statistics", (16, 32, 48, 64)),
    "ipc": ("matching", (5, 10, 20, 40)),
    "sites": ("server, sites alone", (2, 5, 10, 20, 40)),
}
CLASSES = tuple("abcdefghij")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    usual = choose_compute()
    compute = Compute(usual.device, usual.precision, compiled=True)
    seconds: dict[str, dict[int, list[float]]] = {
        axis: {x: [] for x in xs} for axis, (_, xs) in AXES.items()
    }
    for turn in range(options.n + 1):
        for axis, value in points():
            spent = timed(work(axis, value, compute))
            if turn:  # the first is the warm-up: each shape is compiled once
                seconds[axis][value].append(spent)
    results = {
        "command": f"python benchmarks/cost.py -n {options.n}",
        "machine": machine(), "compute": asdict(compute), "versions": versions(), "base": BASE,
        "axes": {axis: line(axis, found) for axis, found in seconds.items()},
    }  # fmt: skip
    options.output.write_text(json.dumps(results, indent=1) + "\n")
    for axis, found in results["axes"].items():
        print(
            axis,
            [round(y, 3) for y in found["median"]],
            f"off the line by at most {100 * found['off_line']:.0f} %",
        )


def points() -> Iterator[tuple[str, int]]:
    """Every axis and value."""
    for axis, (_, values) in AXES.items():
        for value in values:
            yield axis, value


def line(axis: str, found: dict[int, list[float]]) -> dict[str, Any]:
    """Medians with spread of one axis, and how far they lie from a straight line (for the side, one in its square)."""
    x = torch.tensor([float(value**2 if axis == "side" else value) for value in found])
    y = torch.tensor([summary.median(times) for times in found.values()])
    design = torch.stack([x, torch.ones_like(x)], 1) / y[:, None]  # relative errors count
    slope, start = torch.linalg.lstsq(design, torch.ones(len(y), 1)).solution.flatten().tolist()
    off = ((slope * x + start - y) / y).abs().max()
    return {
        "loop": AXES[axis][0], "values": list(found), "median": y.tolist(), "least": [min(t) for t in found.values()],
        "most": [max(t) for t in found.values()], "slope": slope, "start": start, "off_line": float(off),
    }  # fmt: skip


def timed(job: Callable[[], object]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def work(axis: str, value: int, compute: Compute) -> Callable[[], object]:
    """The job of one point, ready to be timed: a site's contribution without local images, or the server's part."""
    at = BASE | {axis: value}
    loop = AXES[axis][0]
    plan = plan_at(at, passes=0 if loop == "server, sites alone" else 1)
    data = noise(plan, 10 * at["batch"])
    if loop == "statistics":
        return lambda: contribute(plan, data, "site-1", RunContext(compute))
    answer = contribute(
        plan_at(BASE | {"T": at["T"]}, passes=1), noise(plan, 640), "site-1", RunContext(compute)
    )
    sent = [answer_of(plan, answer, f"site-{k + 1}") for k in range(at["sites"])]
    return lambda: distill(plan, sent, RunContext(compute))


def plan_at(at: dict[str, int], passes: int) -> Plan:
    """A plan of these settings; no local part, so that one loop is timed at a time."""
    image = ImageSpec(channels=3, side=at["side"], mean=(0.5,) * 3, std=(0.25,) * 3)
    return make_plan(
        CLASSES, image, sites=at["sites"], steps=at["T"], batch=at["batch"], ipc=at["ipc"], pae=2,
        network={"width": 32}, local={"method": "none"}, refinement={"passes": passes},
    )  # fmt: skip


def answer_of(plan: Plan, like: Contribution, site: str) -> Contribution:
    """The same statistics as the answer of another site: what the server does with them takes the same time."""
    return Contribution(site, plan.digest, like.statistics, like.images, like.versions)


def noise(plan: Plan, n: int) -> ImageSet:
    """Images of uniform noise: the time does not depend on what they show."""
    pixels = (Stream.of(1, Purpose.DATA).uniforms(n, *plan.image.shape) * 255).to(torch.uint8)
    return ImageSet(pixels, torch.arange(n) % 10, plan.classes)


if __name__ == "__main__":
    main()
