"""Simulate a round, and print its table of scores."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collabdm.cli.console import Bars, console, notes
from collabdm.cli.scores import print_scores
from collabdm.lab.experiment import Experiment
from collabdm.lab.settings import experiment_fields, simulation
from collabdm.lab.simulate import simulate
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.methods.registry import METHODS
from collabdm.planning.option_values import option_settings, without_none
from collabdm.planning.overrides import read_overrides
from collabdm.planning.settings import collect
from collabdm.rounds.saturation import saturation_note
from collabdm.rounds.shown_files import shown_path, write_shown
from collabdm.scoring.outcomes import OUTCOME_KINDS


def run_simulation(experiment: Experiment, output: Path, compute: Compute, quiet: bool) -> None:
    """Simulate a round, and print the scores and the names of the files.

    Args:
        experiment: the round and its evaluation.
        output: the folder of the round; if it holds an interrupted simulation, that one resumes.
        compute: where to compute.
        quiet: whether to hide the progress bars.
    """
    with Bars(quiet) as bars:
        results = simulate(experiment, output, RunContext(compute, bars), notes.print)

    kind = OUTCOME_KINDS[METHODS[experiment.method].outcome]
    outcome = kind.read(output / kind.file)
    images, picture = kind.images(outcome), shown_path(output / kind.file, outcome.plan)
    if images is not None:
        write_shown(images, outcome.plan, output / kind.file)

    if note := saturation_note(outcome):
        notes.print(note)

    title = f"Accuracy on {experiment.data}, {len(results.sets[experiment.method].sites)} sites"
    print_scores(title, results, with_bytes=True)
    names = ("plan.json", "contributions/", kind.file, picture.name, "results.json")
    console.print(f"in {output}: {', '.join(name for name in names if (output / name).exists())}")


def experiment_from(options: Mapping[str, Any]) -> Experiment:
    """Build the experiment that the options of `simulate` describe.

    Raises PlanError; the message names the options to change.
    """
    names = Experiment.model_fields
    of_experiment = without_none(**{k: v for k, v in options.items() if k in names})
    of_plan = {k: v for k, v in options.items() if k not in names}

    plan, overrides = collect(
        lambda: option_settings(of_plan),
        lambda: read_overrides(options["assignments"] or (), experiment_fields()),
    )
    return simulation(options["config"], options["preset"], of_experiment, plan, overrides)
