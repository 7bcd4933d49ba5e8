"""The package against its plain-loop twin, loop by loop, in turn on the same machine.

    python benchmarks/speed.py -o results/speed/cpu.json      measure, and write docs/performance.md's figures

Correctness first: in float32 both give the same means, images and gradients; then each loop is timed, ours and
the twin's in alternation, after a warm-up (compilation is timed by itself). CIFAR-10's shapes: 10 classes of
3 x 32 x 32 images, ConvNet of 3 blocks of 128 filters.
"""

import argparse
import itertools
import json
import platform
import resource
import statistics as summary
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import twin

from collabdm.data.partition import dirichlet
from collabdm.data.sources import load
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.images import ImageSet
from collabdm.lab.experiment import Experiment
from collabdm.lab.simulate import simulate
from collabdm.matching.augment import expand
from collabdm.matching.compute import Compute, choose_compute
from collabdm.matching.embedding import Sampling, plan_embedding, plan_geometry
from collabdm.matching.loop import Problem, Target, match, start_from
from collabdm.matching.network_size import multiplications, statistics_width
from collabdm.matching.networks import build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.planning.make import make_plan, plan_for
from collabdm.scoring.training import RECIPES, Task, Trainer
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions

SIDE, BATCH, STEPS, IPC, PAE = 32, 64, 3, 10, 2
RECIPE = RECIPES["short"].model_copy(update={"epochs": 3})
LONG = 10**9  # images to come: so many that compiling pays

Figures = dict[str, Any]


def main() -> None:
    """Check, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=5, help="timed runs of each")
    parser.add_argument(
        "--simulate", type=int, default=0, help="timed runs of a whole round: some minutes each"
    )
    parser.add_argument("--precision", default="auto")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    compute = choose_compute("auto", options.precision, compiled=True)
    plan, data = setting()
    check(plan, data)
    peak = matrix_peak(compute)
    loops = {name: compare(loop(plan, data, compute), options.n) for name, loop in LOOPS.items()}
    if options.simulate:
        with tempfile.TemporaryDirectory() as folder:
            usual = choose_compute("auto", options.precision)
            loops["simulate"] = compare(whole_round(data, usual, Path(folder)), options.simulate)
    work = 2 * len(plan.classes) * BATCH * STEPS * multiplications(plan.network, (3, 32, 32))
    rate = work / loops["statistics"]["ours"]["median"]
    results = {
        "command": f"python benchmarks/speed.py -n {options.n} --precision {options.precision}",
        "machine": machine(),
        "compute": asdict(compute),
        "versions": versions(),
        "loops": loops,
        "matrix_peak_gflops": peak / 1e9,
        "statistics_gflops": rate / 1e9,
        "statistics_share_of_peak": rate / peak,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=2) + "\n")
    for name, found in loops.items():
        ours, theirs, ratio = (found[key]["median"] for key in ("ours", "twin", "ratio"))
        print(
            f"{name:12} ours {ours:8.3f} s  twin {theirs:8.3f} s  ratio {ratio:6.1f}  first call {found['first']:.1f} s"
        )
    print(
        f"statistics {rate / 1e9:.0f} GFLOP/s, {100 * rate / peak:.0f} % of the matrix peak, {peak / 1e9:.0f} GFLOP/s"
    )


def setting() -> tuple[Plan, ImageSet]:
    """A plan of CIFAR-10's shapes, and images of uniform noise: the time does not depend on what they show."""
    image = ImageSpec(channels=3, side=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    plan = make_plan(tuple("abcdefghij"), image, batch=BATCH, ipc=IPC, pae=PAE, steps=STEPS)
    pixels = (Stream.of(1, Purpose.DATA).uniforms(5000, *plan.image.shape) * 255).to(torch.uint8)
    return plan, ImageSet(pixels, torch.arange(5000) % 10, plan.classes)


def synthetic(plan: Plan) -> tuple[torch.Tensor, torch.Tensor]:
    """Images to move, in network units, and their labels."""
    labels = torch.arange(10).repeat_interleave(IPC)
    return Stream.of(2, Purpose.DATA).uniforms(len(labels), *plan.image.shape) * 2 - 1, labels


def check(plan: Plan, data: ImageSet) -> None:
    """Refuse to time what is not equal: means, moved images and gradients in float32."""
    compute = Compute(compiled=False)
    ours, theirs = statistics_loop(plan, data, compute)
    torch.testing.assert_close(ours(), theirs(), rtol=1e-3, atol=1e-4)
    ours, theirs = matching_loop(plan, data, compute)
    torch.testing.assert_close(ours(), theirs(), rtol=1e-3, atol=1e-3)
    small = training_images(plan)
    trainer = Trainer(
        Task(plan.network, small, plan_geometry(plan), RECIPE.model_copy(update={"epochs": 1})),
        compute,
    )
    network = build(plan.network, plan.image.shape, 10)
    seed_weights(network, Stream.of(5, Purpose.NETWORK))
    seed_weights(trainer.network, Stream.of(5, Purpose.NETWORK))
    with torch.no_grad():
        expected = network(plan.image.normalisation.apply(small.images))
    torch.testing.assert_close(trainer.logits(small), expected, rtol=1e-3, atol=1e-4)
    assert torch.isfinite(F.cross_entropy(expected, small.labels))


Pair = tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]


def statistics_loop(plan: Plan, data: ImageSet, compute: Compute) -> Pair:
    """Class means of every step."""
    sampling = Sampling(0, Purpose.BATCH, BATCH)
    embedding = plan_embedding(plan, compute, work=LONG)
    index = [sampling.picks(data, step) for step in range(STEPS)]

    def ours() -> torch.Tensor:
        return torch.stack(
            [embedding.at(step).real_means(data, index[step]) for step in range(STEPS)]
        ).cpu()

    return ours, lambda: torch.stack(
        [twin.statistics(plan, data, index, step) for step in range(STEPS)]
    )


def matching_loop(plan: Plan, data: ImageSet, compute: Compute) -> Pair:
    """The refinement of ten images per class, four small ones in each."""
    images, labels = synthetic(plan)
    means = torch.zeros(STEPS, 10, statistics_width(plan))
    present = torch.ones(10, dtype=torch.bool)
    embedding = plan_embedding(plan, compute, work=LONG)
    problem = Problem(embedding, labels, lambda i, _: Target(means[i], present), lambda i: i, PAE)
    rule = plan.refinement.matching.model_copy(update={"learning_rate": 0.01})

    def ours() -> torch.Tensor:
        return match(start_from(images), problem, rule, STEPS)

    return ours, lambda: twin.matching(plan, images, labels, means, rule)


def training_images(plan: Plan) -> ImageSet:
    """The set to train on, small images enlarged."""
    images, labels = synthetic(plan)
    return ImageSet(expand(images, PAE), labels.repeat_interleave(PAE**2), plan.classes)


def training_loop(plan: Plan, data: ImageSet, compute: Compute) -> Pair:
    """One evaluation network."""
    small = training_images(plan)
    trainer = Trainer(Task(plan.network, small, plan_geometry(plan), RECIPE), compute, runs=10_000)

    def ours() -> torch.Tensor:
        return trainer.train(3).classifier.weight.detach()

    return ours, lambda: twin.training(plan, small, RECIPE, 3).classifier.weight.detach()


def whole_round(data: ImageSet, compute: Compute, folder: Path) -> Pair:
    """`simulate` itself, files and scores and all: five skewed sites, a set, one network."""
    np.savez(
        folder / "data.npz",
        **{f"{s}_images": data.images.numpy() for s in ("train", "test")},
        **{f"{s}_labels": data.labels.numpy() for s in ("train", "test")},
    )
    settings: dict[str, Any] = {
        "ipc": IPC, "pae": PAE, "steps": 10, "batch": BATCH, "local": {"steps": 10, "batch": BATCH},
        "refinement": {"passes": 2},
    }  # fmt: skip
    asked = {
        "sites": 5,
        "beta": 0.3,
        "plan": settings,
        "trials": 1,
        "recipe": "short",
        "epochs": 30,
        "compare": (),
    }
    experiment = Experiment(data=str(folder / "data.npz"), **asked)
    train = load(folder / "data.npz")
    sites = list(dirichlet(train.labels, 10, 5, 0.3, 0).sites(train).values())
    plan = plan_for(train, sites=5, **settings)
    runs = itertools.count()

    def ours() -> torch.Tensor:
        return torch.tensor(
            simulate(experiment, folder / str(next(runs)), RunContext(compute)).scores[0].score.mean
        )

    recipe = RECIPE.model_copy(update={"epochs": 30})
    return ours, lambda: torch.tensor(twin.round_and_score(plan, sites, train, recipe))


LOOPS: dict[str, Callable[[Plan, ImageSet, Compute], Pair]] = {
    "statistics": statistics_loop,
    "matching": matching_loop,
    "training": training_loop,
}


def compare(pair: Pair, n: int) -> Figures:
    """Seconds of both, in turn, and their ratio pair by pair."""
    first = seconds(pair[0])
    seconds(pair[1])
    runs = [(seconds(pair[0]), seconds(pair[1])) for _ in range(n)]
    columns = {
        "ours": [a for a, _ in runs],
        "twin": [b for _, b in runs],
        "ratio": [b / a for a, b in runs],
    }
    return {"n": n, "first": first} | {name: spread(column) for name, column in columns.items()}


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(figures: list[float]) -> Figures:
    """Median, least and most."""
    return {"median": summary.median(figures), "min": min(figures), "max": max(figures)}


def matrix_peak(compute: Compute, size: int = 4096) -> float:
    """FLOP/s of a square matrix product in the precision of the networks: the best of several."""
    a = Stream.of(0, Purpose.DATA).uniforms(size, size).to(compute.dtype).to(compute.device)
    return 2 * size**3 / min(seconds(lambda: a @ a) for _ in range(7))


def machine() -> str:
    """Architecture, cores and processor."""
    return f"{platform.machine()}, {torch.get_num_threads()} cores, {cpu_name()}"


def cpu_name() -> str:
    """What the processor calls itself, where the system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
