"""Shared by the comparisons: options of the command line, a run for each seed, a file of results.

Seeds that the file already contains, with the same settings, are not run again.
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

Results = dict[str, Any]
Run = Callable[[argparse.Namespace, int], Results]

NOT_SETTINGS = ("seeds", "output", "precision")


def parse_arguments(description: str | None, sizes: dict[str, int]) -> argparse.Namespace:
    """The options: the data, the seeds, the output, and whole numbers with their defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs")
    parser.add_argument("--precision", default="float32", help="float32, bfloat16 or auto")
    parser.add_argument("-o", "--output", type=Path, help="JSON file of the results")
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


def compute_of(arguments: argparse.Namespace, compiled: bool | None = None) -> Compute:
    """Device and precision; `compiled` as in `Compute`."""
    return choose_compute(precision=arguments.precision, compiled=compiled)


def plan_of_one_site(train: ImageSet, arguments: argparse.Namespace, seed: int) -> Plan:
    """A plan with which the only site distils its data.

    Args:
        train: its images.
        arguments: ipc, pae, steps, local_steps and width.
        seed: the seed of the run.

    Returns:
        The plan.
    """
    large = train.shape[1] >= 16
    matching = {"learning_rate": 10.0 if large else 1.0}
    return plan_for(
        train,
        seed=seed,
        sites=1,
        ipc=arguments.ipc,
        pae=arguments.pae,
        steps=arguments.steps,
        network={"width": arguments.width, "depth": 3 if large else 2},
        local={"steps": arguments.local_steps},
        refinement={"passes": 2, "matching": matching},
    )


def over_seeds(arguments: argparse.Namespace, run: Run) -> list[Results]:
    """The results of `run` for each seed, written to the output after each one."""
    setting = {name: value for name, value in vars(arguments).items() if name not in NOT_SETTINGS}
    path = arguments.output
    stored = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
    runs = stored["runs"] if stored.get("setting") == setting else []

    for seed in range(len(runs), arguments.seeds):
        runs.append(run(arguments, seed))
        if path:
            results = {
                "setting": setting,
                "precision": arguments.precision,
                "runs": runs,
                "versions": versions(),
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    return runs


def with_spread(values: Sequence[float], form: str) -> str:
    """Mean and standard deviation over seeds, and the number of seeds.

    >>> with_spread([1.0, 2.0], ".1f")
    '1.5 ± 0.7 (n = 2)'
    """
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):{form}} ± {spread:{form}} (n = {len(values)})"
