"""Options of the command line: choices, `--set`, and what help, version and completion show."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from command import NETWORK, TINY, done, run

from collabdm.cli import choices
from collabdm.cli.main import COMMANDS
from collabdm.documents.distillation import Local
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.documents.specs import WIRE_BYTES
from collabdm.export.dataset import FORMS
from collabdm.lab.experiment import Experiment
from collabdm.lab.reproduce.grid_files import SCALES
from collabdm.matching import compute
from collabdm.methods.registry import METHODS, register
from collabdm.planning.presets import PRESETS
from collabdm.rounds import exchange
from collabdm.scoring.training import RECIPES
from collabdm.version import __version__

PLAN = ("plan", "--classes", "cat,dog", "--image-size", "3x16", "--network", NETWORK)


# --- choices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        (choices.Preset, PRESETS),
        (choices.Recipe, RECIPES),
        (choices.Wire, WIRE_BYTES),
        (choices.ImageType, get_args(Plan.model_fields["images"].annotation)),
        (choices.Merging, get_args(Plan.model_fields["merging"].annotation)),
        (choices.Init, get_args(Local.model_fields["start"].annotation)),
        (choices.LocalMethod, get_args(Local.model_fields["method"].annotation)),
        (choices.Precision, ("auto", *get_args(compute.Precision))),
        (choices.Form, (*FORMS, "onnx")),
        (choices.Layout, get_args(FlowSchema.model_fields["layout"].annotation)),
        (choices.Grouping, get_args(FlowSchema.model_fields["grouping"].annotation)),
        (choices.Split, get_args(FlowSchema.model_fields["split"].annotation)),
        (choices.Scale, SCALES),
        (choices.DataSplit, get_args(exchange.Split)),
    ],
)
def test_choices_are_those_of_the_models(choice, names) -> None:
    assert get_args(choice) == tuple(names)


def test_the_methods_in_the_help_are_those_of_this_package() -> None:
    assert tuple(METHODS) == choices.METHODS
    assert tuple(m.name for m in METHODS.values() if m.run_rounds is None) == choices.PLAN_METHODS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--wire", "flot16"),
            "`--wire` should be float16, int8 or float32; found 'flot16': did you mean float16?",
        ),
        (
            ("--preset", "papr"),
            "`--preset` should be best, real, paper, fedd3, dosfl, dense or none; found 'papr': did you",
        ),
        (
            ("--merging", "mean"),
            "`--merging` should be weighted, uniform, median or trimmed; found 'mean'",
        ),
        (("--method", "dens"), "found 'dens': did you mean dense?"),
    ],
)
def test_an_unknown_value_is_refused_with_all_and_the_nearest(words, message, tmp_path) -> None:
    result = run(*PLAN, "-o", tmp_path / "plan.json", *words)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert not list(tmp_path.iterdir())


def test_the_help_lists_the_values(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    text = done("plan", "--help").out
    for choice in (choices.Preset, choices.Wire, choices.Merging, choices.LocalMethod):
        assert "|".join(get_args(choice)) in text


def test_a_method_of_another_package_can_be_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("collabdm.methods.registry.METHODS", dict(METHODS))
    own = METHODS["coreset"]
    register(type(own)(**{**vars(own), "name": "their-method"}))
    done(*PLAN, "--method", "their-method", "-o", tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json").steps == 0


def test_the_method_of_a_plan_sets_what_the_method_stands_for(tmp_path) -> None:
    plans = {}
    for name in ("collabdm", "collabdm-pae", "localdm", "coreset"):
        done(*PLAN, "--method", name, "-o", tmp_path / "plan.json")
        plans[name] = read_plan(tmp_path / "plan.json")
    assert [plan.pae for plan in plans.values()] == [2, 2, 1, 1]
    assert [plan.steps for plan in plans.values()] == [100, 100, 0, 0]
    assert plans["collabdm"].method == "collabdm"


# --- --set ---------------------------------------------------------------------------------------


def plan_with(folder: Path, *words: object) -> Plan:
    done(*PLAN, "-o", folder / "plan.json", *words)
    return read_plan(folder / "plan.json")


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("refinement.passes=7", "refinement.passes", 7),
        ("plan.refinement.passes=7", "refinement.passes", 7),
        ("refinement.matching.schedule=cosine", "refinement.matching.schedule", "cosine"),
        ('refinement.matching.schedule="cosine"', "refinement.matching.schedule", "cosine"),
        ("local.matching.spread = 0.5", "local.matching.spread", 0.5),
        ("refinement.matching.learning_rate=1e1", "refinement.matching.learning_rate", 10.0),
        ("refinement.matching.learning_rate=2", "refinement.matching.learning_rate", 2.0),
        ("batch=none", "batch", None),
        ("batch=null", "batch", None),
        ("sketch=none", "sketch", None),
        ("local.method=none", "local.method", "none"),
        ("network.norm=none", "network.norm", "none"),
        ("augment=[crop, scale]", "augment", ("crop", "scale")),
        ('augment=["crop"]', "augment", ("crop",)),
        ("augment=[]", "augment", ()),
        ("collection.quorum=2", "collection.quorum", 2),
        ("wire=int8", "wire", "int8"),
    ],
)
def test_any_field_of_a_plan_can_be_set(text, field, value, tmp_path) -> None:
    found: Any = plan_with(tmp_path, "--set", text)
    for name in field.split("."):
        found = getattr(found, name)
    assert (found, type(found)) == (value, type(value))


def test_settings_take_precedence_in_the_documented_order(tmp_path) -> None:
    (tmp_path / "c.toml").write_text(
        "preset = 'paper'\nsteps = 3\nbatch = 30\nipc = 3\n[local]\nbatch = 9\n"
    )
    words = ("--config", tmp_path / "c.toml", "--batch", 40, "--ipc", 4, "--set", "ipc=5")
    plan = plan_with(tmp_path, *words)
    assert (plan.local.steps, plan.merging) == (1000, "uniform")  # preset
    assert (plan.steps, plan.local.batch) == (3, 9)  # file
    assert plan.batch == 40  # option
    assert plan.ipc == 5  # --set
    assert plan_with(tmp_path, *words, "--set", "ipc=6").ipc == 6  # the later of two


def test_a_field_of_the_network_is_set_within_the_network_of_the_option(tmp_path) -> None:
    network = plan_with(
        tmp_path, "--network", "ConvNet:width=24,depth=1", "--set", "network.depth=2"
    ).network
    assert (network.width, network.depth) == (24, 2)


def test_a_budget_keeps_what_is_set(tmp_path) -> None:
    plan = plan_with(
        tmp_path, "--budget", "300kB", "--set", "steps=7", "--set", "refinement.passes=3"
    )
    assert (plan.steps, plan.refinement.passes, plan.wire) == (7, 3, "int8")


def test_a_field_of_the_schema_of_flows_is_set_within_the_schema(tmp_path) -> None:
    done(
        "plan",
        "--flows",
        "5gnidd",
        "--network",
        NETWORK,
        "-o",
        tmp_path / "p.json",
        "--set",
        "flows.flows=9",
    )
    flows = read_plan(tmp_path / "p.json").flows
    assert flows is not None
    assert (flows.flows, flows.side) == (9, 64)


def test_options_of_a_method_can_be_set(tmp_path) -> None:
    words = ("--preset", "fedd3", "--set", "options.iterations=5", "--ipc", 2)
    options = plan_with(tmp_path, *words).options
    assert options is not None
    assert (options["iterations"], options["learning_rate"]) == (5, 0.004)
    result = run(*PLAN, *words, "--set", "options.iterration=5", "-o", tmp_path / "x.json")
    assert result.code == 2
    assert "`options.iterration` is not a setting" in result.err


WRONG = {
    "refinement.pases=4": "`refinement.pases` is not a setting: did you mean refinement.passes?",
    "passes=4": "`passes` is not a setting: did you mean refinement.passes?",
    "learning_rate=1": "did you mean local.matching.learning_rate or "
    "refinement.matching.learning_rate?",
    "xyzzy=1": "`xyzzy` is not a setting: check its spelling",
    "ipc=ten": "`ipc` should be a whole number; found 'ten'",
    "ipc=0": "`ipc` should be greater than or equal to 1; found '0'",
    "ipc=none": "`ipc` should be a whole number; found 'none'",
    "steps=1.5": "`steps` should be a whole number; found '1.5'",
    "wire=int9": "`wire` should be 'float16', 'int8' or 'float32'; found 'int9'",
    "augment=[crop, blur]": "`augment` should be 'color', 'crop', 'cutout', 'flip', 'scale' or "
    "'rotate'; found '[crop, blur]'",
    "refinement=4": "`refinement` should be set field by field, such as refinement.passes; "
    "found a value for all",
    "image.side=8": "`image.side` cannot be set; found '8': it follows from `--data`",
    "classes=[a, b]": "`classes` cannot be set; found '[a, b]': it follows from `--data`",
    "ipc": "`--set` should be FIELD=VALUE, such as ipc=5; found 'ipc'",
    "=5": "`--set` should be FIELD=VALUE, such as ipc=5; found '=5'",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_setting_is_refused_with_what_is_expected(text, tmp_path) -> None:
    result = run(*PLAN, "--set", text, "-o", tmp_path / "plan.json")
    assert (result.code, result.out) == (2, "")
    assert WRONG[text] in result.err
    assert not list(tmp_path.iterdir())


def test_all_wrong_settings_and_options_are_named_at_once(tmp_path) -> None:
    words = [word for text in WRONG for word in ("--set", text)]
    result = run(
        *PLAN, *words, "--batch", "some", "--augment", "blur", "-o", tmp_path / "plan.json"
    )
    assert result.code == 2
    for message in WRONG.values():
        assert message in result.err
    assert "`batch` should be a number of at least 1, or all; found 'some'" in result.err
    assert "`augment` should be among color_crop_cutout_flip_scale_rotate; found blur" in result.err


def experiment_of(monkeypatch: pytest.MonkeyPatch, *words: object) -> Experiment:
    """The experiment that `simulate` would run."""
    asked: list[Experiment] = []
    monkeypatch.setattr(
        "collabdm.cli.simulating.run_simulation", lambda experiment, *_: asked.append(experiment)
    )
    done("simulate", "--data", "digits", "-o", "unused", *words)
    return asked[0]


def test_any_field_of_an_experiment_and_of_its_plan_can_be_set(monkeypatch) -> None:
    words = (
        "trials=3",
        "beta=none",
        "plan.refinement.matching.schedule=cosine",
        "plan.batch=none",
        "data=mnist",
    )
    experiment = experiment_of(monkeypatch, *(word for text in words for word in ("--set", text)))
    assert (experiment.trials, experiment.beta, experiment.data) == (3, None, "mnist")
    assert experiment.plan["refinement"] == {"matching": {"schedule": "cosine"}, "passes": 16}
    assert experiment.plan["batch"] is None


@pytest.mark.parametrize(
    ("option", "assignment"),
    [
        (("--trials", "3"), "trials=3"),
        (("--beta", "0"), "beta=0"),
        (("--beta", "2"), "beta=2"),
        (("--compare", "random,all"), "compare=[random, all]"),
        (("--ipc", "3"), "plan.ipc=3"),
        (("--batch", "all"), "plan.batch=none"),
        (("--passes", "9"), "plan.refinement.passes=9"),
        (("--learning-rate", "1"), "learning_rate=1"),
        (("--partition", "3"), "partition=3"),
    ],
)
def test_an_option_and_the_same_field_set_are_one_experiment(
    option, assignment, monkeypatch
) -> None:
    by_option = experiment_of(monkeypatch, *TINY, *option)
    by_name = experiment_of(monkeypatch, *TINY, "--set", assignment)
    assert by_option == by_name
    assert by_option.digest == by_name.digest


def test_settings_of_a_simulation_that_are_wrong_are_all_named(tmp_path) -> None:
    wrong = {
        "refinement.passes=4": "`refinement.passes` is not a setting: did you mean "
        "plan.refinement.passes?",
        "trails=3": "`trails` is not a setting: did you mean trials?",
        "plan.ipc=ten": "`plan.ipc` should be a whole number",
        "plan.sites=4": "`plan.sites` cannot be set; found '4': the simulation derives it",
        "recipe=cake": "`recipe` should be 'paper', 'short' or 'strong'; found 'cake'",
        "plan=5": "`plan` should be set field by field",
    }
    words = [word for text in wrong for word in ("--set", text)]
    result = run("simulate", "--data", "digits", *words, "--batch", "some", "-o", tmp_path / "sim")
    assert result.code == 2
    for message in (
        *wrong.values(),
        "`batch` should be a number of at least 1, or all; found 'some'",
    ):
        assert message in result.err
    assert not list(tmp_path.iterdir())


# --- help, version, completion -------------------------------------------------------------------


@pytest.mark.parametrize("words", [("--version",), ("-V",), ("version",), ("-V", "plan")])
def test_the_version_is_printed(words) -> None:
    assert done(*words).out == f"{__version__}\n"


@pytest.mark.parametrize("words", [(), ("plan",), ("simulate",), ("version",)])
def test_the_short_help_is_the_help(words) -> None:
    assert done(*words, "-h").out == done(*words, "--help").out


def test_the_help_groups_the_commands_by_who_uses_them() -> None:
    text = done("--help").out
    titles = ("Organiser", "Site", "Server", "Users of a distilled set", "Research", "Program")
    assert tuple(COMMANDS) == titles
    places = [text.index(f"─ {title} ─") for title in titles]
    assert places == sorted(places)
    assert all(
        f"│ {command.__name__.replace('_', '-')} " in text
        for part in COMMANDS.values()
        for command in part
    )


def test_the_program_is_also_a_module() -> None:
    command = [sys.executable, "-m", "collabdm", "--version"]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout
        == f"{__version__}\n"
    )


def completions(words: str) -> list[str]:
    """What a shell would offer after these words."""
    environment = {
        "_COLLABDM_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    command = [sys.executable, "-m", "collabdm"]
    ran = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return ran.stdout.split()


def test_commands_options_and_values_are_completed() -> None:
    assert completions("collabdm sim") == ["simulate"]
    assert completions("collabdm plan --pres") == ["--preset"]
    assert completions("collabdm plan --preset ") == list(get_args(choices.Preset))
    assert completions("collabdm simulate --method rounds") == ["rounds-means", "rounds-gradients"]


def test_a_paragraph_of_the_help_is_broken_only_where_the_terminal_ends(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    lines = run("reproduce", "--help").out.splitlines()
    (paragraph,) = [line for line in lines if "Reports the expected time" in line]
    assert "`collabdm report` shows the folder." in paragraph
