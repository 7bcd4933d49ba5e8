"""The cost of a round against T, batch, sites, ipc and image side: straight lines are expected.

    python benchmarks/cost.py -o results/speed/cost.json

One setting at a time is varied from the base (CIFAR-10's shapes, a ConvNet of width 32). Every
point is measured n times, all axes in turn, so that a slow minute of the machine does not affect
one line alone.
"""

import argparse
import json
import statistics as summary
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from speed import machine, seconds

from collabdm.documents.contribution import Contribution
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.images import ImageSet
from collabdm.matching.compute import Compute, choose_compute
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute, distill
from collabdm.planning.make import make_plan
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions

Times = dict[int, list[float]]  # value of a setting -> seconds of each run

BASE = {"T": 8, "batch": 64, "sites": 5, "ipc": 10, "side": 32}
MERGING = "server, sites alone"
#: axis: (the loop whose time it determines, values)
AXES: dict[str, tuple[str, tuple[int, ...]]] = {
    "T": ("statistics", (4, 8, 16, 32)),
    "batch": ("statistics", (16, 32, 64, 128, 256)),
    "side": ("statistics", (16, 32, 48, 64)),
    "ipc": ("matching", (5, 10, 20, 40)),
    "sites": (MERGING, (2, 5, 10, 20, 40)),
}
CLASSES = tuple("abcdefghij")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=3, help="timed runs of each point")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()

    usual = choose_compute()
    compute = Compute(usual.device, usual.precision, compiled=True)
    times = measure(options.n, compute)

    results = {
        "command": f"python benchmarks/cost.py -n {options.n}",
        "machine": machine(),
        "compute": asdict(compute),
        "versions": versions(),
        "base": BASE,
        "axes": {axis: line(axis, of_axis) for axis, of_axis in times.items()},
    }
    options.output.write_text(json.dumps(results, indent=1) + "\n")

    for axis, fitted in results["axes"].items():
        medians = [round(y, 3) for y in fitted["median"]]
        print(axis, medians, f"off the line by at most {100 * fitted['off_line']:.0f} %")


def measure(n: int, compute: Compute) -> dict[str, Times]:
    """The seconds of every point, n times after a warm-up, which compiles each shape once."""
    times: dict[str, Times] = {
        axis: {value: [] for value in values} for axis, (_, values) in AXES.items()
    }
    for turn in range(n + 1):
        for axis, value in points():
            spent = seconds(job(axis, value, compute))
            if turn:
                times[axis][value].append(spent)
    return times


def points() -> Iterator[tuple[str, int]]:
    """Every axis and value."""
    for axis, (_, values) in AXES.items():
        for value in values:
            yield axis, value


def line(axis: str, times: Times) -> dict[str, Any]:
    """Medians and spread of an axis, and their distance from a straight line.

    For the side the line is one in its square. Relative errors are minimised.
    """
    x = torch.tensor([float(value**2 if axis == "side" else value) for value in times])
    y = torch.tensor([summary.median(runs) for runs in times.values()])
    design = torch.stack([x, torch.ones_like(x)], 1) / y[:, None]
    slope, start = torch.linalg.lstsq(design, torch.ones(len(y), 1)).solution.flatten().tolist()
    off_line = ((slope * x + start - y) / y).abs().max()

    return {
        "loop": AXES[axis][0],
        "values": list(times),
        "median": y.tolist(),
        "least": [min(runs) for runs in times.values()],
        "most": [max(runs) for runs in times.values()],
        "slope": slope,
        "start": start,
        "off_line": float(off_line),
    }


def job(axis: str, value: int, compute: Compute) -> Callable[[], object]:
    """The work of one point: a site's contribution without local images, or the server's part.

    Args:
        axis: the setting that is varied.
        value: its value.
        compute: device and precision.

    Returns:
        A function that does the work, and nothing else.
    """
    settings, loop, context = BASE | {axis: value}, AXES[axis][0], RunContext(compute)
    plan = plan_of(settings, passes=0 if loop == MERGING else 1)
    if loop == "statistics":
        data = noise(plan, 10 * settings["batch"])
        return lambda: contribute(plan, data, "site-1", context)

    of_base = plan_of(BASE | {"T": settings["T"]}, passes=1)
    contribution = contribute(of_base, noise(plan, 640), "site-1", context)
    sent = [answer(plan, contribution, f"site-{k + 1}") for k in range(settings["sites"])]
    return lambda: distill(plan, sent, context)


def plan_of(settings: dict[str, int], passes: int) -> Plan:
    """A plan without a local part, so that one loop is timed at a time."""
    image = ImageSpec(channels=3, side=settings["side"], mean=(0.5,) * 3, std=(0.25,) * 3)
    return make_plan(
        CLASSES,
        image,
        sites=settings["sites"],
        steps=settings["T"],
        batch=settings["batch"],
        ipc=settings["ipc"],
        pae=2,
        network={"width": 32},
        local={"method": "none"},
        refinement={"passes": passes},
    )


def answer(plan: Plan, contribution: Contribution, site: str) -> Contribution:
    """The same statistics as the answer of another site to another plan."""
    return replace(contribution, site=site, plan_digest=plan.digest)


def noise(plan: Plan, n: int) -> ImageSet:
    """n images of uniform noise; the time does not depend on their content."""
    pixels = (Stream.of(1, Purpose.DATA).uniforms(n, *plan.image.shape) * 255).to(torch.uint8)
    return ImageSet(pixels, torch.arange(n) % 10, plan.classes)


if __name__ == "__main__":
    main()
