"""What the comparisons share: sizes from the command line, one run for each seed, one file of
results.

Seeds that the file holds already, from the same setting, are not run again.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from collabdm import ImageSet, Plan, plan_for
from collabdm.matching.compute import Compute, choose_compute
from collabdm.version import versions

Run = Callable[[argparse.Namespace, int], dict[str, Any]]
NOT_SETTINGS = ("seeds", "output", "precision")


def arguments_of(about: str | None, sizes: dict[str, int]) -> argparse.Namespace:
    """The command line: the data, the number of seeds, where results go, and whole numbers with
    their defaults.
    """
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--precision", default="float32", help="float32, bfloat16 or auto")
    parser.add_argument("-o", "--output", type=Path)
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def compute_of(arguments: argparse.Namespace, compiled: bool | None = None) -> Compute:
    """Where to compute."""
    return choose_compute(precision=arguments.precision, compiled=compiled)


def agreed(train: ImageSet, arguments: argparse.Namespace, seed: int) -> Plan:
    """The plan by which one holder of the data distils them."""
    large = train.shape[1] >= 16
    return plan_for(
        train,
        seed=seed,
        sites=1,
        ipc=arguments.ipc,
        pae=arguments.pae,
        steps=arguments.steps,
        network={"width": arguments.width, "depth": 3 if large else 2},
        local={"steps": arguments.local_steps},
        refinement={"passes": 2, "matching": {"learning_rate": 10.0 if large else 1.0}},
    )


def over_seeds(arguments: argparse.Namespace, run: Run) -> list[dict[str, Any]]:
    """What `run` found for each seed; on disk after each, where an output is named."""
    setting = {name: value for name, value in vars(arguments).items() if name not in NOT_SETTINGS}
    path = arguments.output
    kept = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
    runs = kept["runs"] if kept.get("setting") == setting else []
    for seed in range(len(runs), arguments.seeds):
        runs.append(run(arguments, seed))
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            results = {
                "setting": setting,
                "precision": arguments.precision,
                "runs": runs,
                "versions": versions(),
            }
            path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return runs


def with_spread(values: Sequence[float], form: str) -> str:
    """Mean, standard deviation over seeds, and their number.

    >>> with_spread([1.0, 2.0], ".1f")
    '1.5 ± 0.7 (n = 2)'
    """
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):{form}} ± {spread:{form}} (n = {len(values)})"
