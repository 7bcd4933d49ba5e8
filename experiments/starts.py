"""What a round loses when no image leaves a site: accuracy from different starts.

    python experiments/starts.py --data mnist=FOLDER cifar10=FOLDER -o results/privacy/starts.jsonl

Every line is one simulated round. The starts are compared on the same splits, seeds, steps and
networks; only the images that refinement starts from, and its schedule, differ:

    real            the paper's: three local images of a class, from real ones, 4 passes
    noise           statistics alone: the server starts from noise
    averages        three averages of at least 50 similar images each, as many as real ones
    averages, 10    ten averages of a class and fewer steps, with no more bytes
    averages, more  ten averages of a class, with more bytes

Rounds that the output contains are not repeated.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from collabdm.lab.experiment import Experiment
from collabdm.lab.simulate import simulate
from collabdm.matching.compute import choose_compute
from collabdm.matching.run_context import RunContext
from collabdm.version import versions

COMMON: dict[str, Any] = {
    "ipc": 10,
    "steps": 50,
    "batch": 128,
    "network": {"name": "ConvNet", "width": 32},
}
ITERATIONS = 800  # of refinement, except from real images
IMAGES = {"real": 3, "averages": 3, "averages, 10": 10, "averages, more": 10}
STARTS = ("real", "noise", *(name for name in IMAGES if name != "real"))

#: steps that leave room for ten images of a class instead of three
FEWER_STEPS = {"cifar10": 29, "fashion_mnist": 40}


def plan_settings(name: str, start: str) -> dict[str, Any]:
    """Set the local images, the steps and the refinement of a start."""
    images = IMAGES.get(start, 0)
    if start == "real":
        local = {"method": "dm", "start": "real", "steps": 50, "batch": 64, "images": images}
        return COMMON | {"local": local, "refinement": {"passes": 4}}

    steps = FEWER_STEPS[name] if start == "averages, 10" else COMMON["steps"]
    refinement = {"passes": round(ITERATIONS / steps), "matching": {"schedule": "cosine"}}
    method = "averages" if images else "none"
    local = {"method": method, "images": images}
    return COMMON | {"steps": steps, "local": local, "refinement": refinement}


def experiment(name: str, location: str, start: str, seed: int) -> Experiment:
    """Define the round of one start."""
    return Experiment(
        data=location,
        method="collabdm-pae",
        beta=0.1,
        plan=plan_settings(name, start),
        trials=2,
        recipe="short",
        seed=seed,
        compare=(),
        test_per_class=500,
    )


def run(name: str, location: str, start: str, seed: int) -> dict[str, Any]:
    """Run one round, and return its line."""
    settings = experiment(name, location, start, seed)
    context = RunContext(choose_compute("cpu", "auto"))
    began = time.monotonic()

    with tempfile.TemporaryDirectory() as folder:
        results = simulate(settings, Path(folder), context)
    scores = {score.what: list(score.accuracies) for score in results.scores}
    sent = results.sets[settings.method].bytes_per_site

    return {
        "data": name,
        "start": start,
        "seed": seed,
        "accuracies": scores[settings.method],
        "largest_contribution": max(sent.values()),
        "seconds": round(time.monotonic() - began),
        "settings": settings.model_dump(mode="json") | {"data": name},
        "device": context.compute.device,
        "precision": context.compute.precision,
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "command": "python " + " ".join(sys.argv),
    }


def main() -> None:
    """Run the rounds that the output does not contain yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="NAME=LOCATION")
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    lines = options.output.read_text().splitlines() if options.output.exists() else []
    finished = {(row["data"], row["start"], row["seed"]) for row in map(json.loads, lines)}

    for seed in options.seeds:
        for data in options.data:
            name, _, location = data.partition("=")
            for start in options.starts:
                if (name, start, seed) in finished:
                    continue
                row = run(name, location or name, start, seed)
                print(name, start, seed, row["accuracies"], f"{row['seconds']} s", flush=True)
                with options.output.open("a") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
