"""The commands from end to end: what they write, print and answer, and how they stop and go on."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from command import (
    NETWORK,
    OPEN,
    SCORED,
    SPLIT,
    TINY,
    Result,
    cells,
    done,
    picture_folder,
    run,
    watched,
)
from PIL import Image

from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.lab import demo
from collabdm.lab import simulate as experiment
from collabdm.lab.simulate import simulate
from collabdm.planning.make import make_plan
from collabdm.planning.presets import PRESETS
from collabdm.rounds import resumable
from collabdm.rounds.contributions import read_contribution

CLASSES = ("cat", "dog", "owl")
HELD = {"north": {"cat": 6, "dog": 3}, "south": {"dog": 5, "owl": 4}}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> object:
    """Bytes are compared between processes: all use one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tally(counts: dict[str, int]) -> str:
    """What a command reports of a folder with these numbers of pictures."""
    classes = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"{sum(counts.values())} images of {len(counts)} classes ({classes})"


def make_round(root: Path, *options: str) -> tuple[Path, dict[str, Result]]:
    """A plan without data, two sites with the plan and their own pictures, the server."""
    ran = {}
    ran["plan"] = done(
        *(
            "plan",
            "--classes",
            ",".join(CLASSES),
            "--image-size",
            "3x8",
            "--pae",
            "--sites",
            "north,south",
        ),
        *(*TINY, "--ipc", 2, "--seed", 3, "-o", root / "plan.json"),
    )
    for site, counts in HELD.items():
        alone = root / site
        picture_folder(alone / "pictures", **counts)
        (alone / "plan.json").write_bytes((root / "plan.json").read_bytes())
        here = Path.cwd()
        os.chdir(alone)
        try:
            ran[site] = done(
                *("contribute", "plan.json", *OPEN, "--data", "pictures", "--site", site),
                *("-o", "answer.safetensors", *options),
            )
        finally:
            os.chdir(here)
    sent = [root / site / "answer.safetensors" for site in HELD]
    ran["distill"] = done(
        "distill", root / "plan.json", *sent, "-o", root / "set.safetensors", *options
    )
    return root, ran


@pytest.fixture(scope="module")
def a_round(tmp_path_factory) -> tuple[Path, dict[str, Result]]:
    root, ran = make_round(tmp_path_factory.mktemp("round"))
    for split, count in (("train", 4), ("test", 3)):
        picture_folder(root / "public" / split, **dict.fromkeys(CLASSES, count))
    ran["evaluate"] = done(
        *(
            "evaluate",
            root / "set.safetensors",
            "--data",
            root / "public",
            "--json",
            root / "scores.json",
        ),
        *("--trials", 2, "--recipe", "short", "--epochs", 2, "--networks", f"ConvNet,{NETWORK}"),
    )
    return root, ran


# --- a round by hand -----------------------------------------------------------------------------


def test_a_plan_is_made_from_class_names_and_a_size_alone(a_round) -> None:
    root, ran = a_round
    plan = read_plan(root / "plan.json")
    assert plan.classes == CLASSES
    assert plan.image.shape == (3, 8, 8)
    assert plan.site_names == ("north", "south")
    assert (plan.seed, plan.ipc, plan.steps, plan.batch, plan.pae) == (3, 2, 3, 4, 2)
    assert (plan.local.steps, plan.refinement.passes, plan.network.width) == (2, 2, 8)
    said = " ".join(ran["plan"].out.split())
    assert (
        f"plan {plan.digest[:16]}…, seed 3, 2 sites, T = 3 sketch none, wire float16, ipc 2, pae 2"
        in said
    )
    assert "on two cores" in said


def test_a_site_answers_with_the_classes_it_holds(a_round) -> None:
    root, _ = a_round
    plan = read_plan(root / "plan.json")
    for site, counts in HELD.items():
        answer = read_contribution(root / site / "answer.safetensors", plan)
        assert answer.site == site
        assert answer.images.counts().tolist() == [2 * (name in counts) for name in CLASSES]
        assert answer.statistics.totals.tolist() == list(counts.values())


def test_a_site_leaves_nothing_but_its_answer(a_round) -> None:
    root, _ = a_round
    for site in HELD:
        assert {path.name for path in (root / site).iterdir()} == {
            "plan.json",
            "pictures",
            "answer.safetensors",
        }


def test_the_set_has_ipc_images_of_each_class_and_says_what_each_site_held(a_round) -> None:
    made = read_distilled(a_round[0] / "set.safetensors")
    assert made.images.counts().tolist() == [2, 2, 2]
    assert made.sites == {"north": [6, 3, 0], "south": [0, 5, 4]}
    assert made.plan == read_plan(a_round[0] / "plan.json")


def test_the_picture_of_the_set_has_a_row_for_each_class(a_round) -> None:
    with Image.open(a_round[0] / "set.png") as picture:
        assert picture.size == (
            2 * 66 + 2,
            3 * 66 + 2,
        )  # two images of 64 pixels a row, gaps of two


def test_what_was_written_is_printed_as_inspect_prints_it(a_round) -> None:
    root, ran = a_round
    document = root / "set.safetensors"
    table, _, written = ran["distill"].out.partition(str(document))
    assert table.startswith("The sites;")
    assert done("inspect", document).out == str(document) + written


def test_the_scores_are_written_with_all_that_they_depend_on(a_round) -> None:
    root, _ = a_round
    results = json.loads((root / "scores.json").read_text())
    assert {s["what"] for s in results["scores"]} == {"collabdm", "random real", "random real, pae"}
    assert all(
        len(s["accuracies"]) == s["n"] == 2 and 0 <= s["mean"] <= 1 for s in results["scores"]
    )
    assert {s["what"]: s["images"] for s in results["scores"]} == {
        "collabdm": 6 * 4,
        "random real": 6,
        "random real, pae": 6 * 4,
    }
    assert len(results["scores"]) == 6  # two networks
    assert results["plan"] == read_plan(root / "plan.json").digest
    assert results["bytes"] == (root / "set.safetensors").stat().st_size
    assert (results["seed"], results["recipe"]["epochs"]) == (0, 2)
    assert {"torch", "collabdm"} <= set(results["versions"])
    assert {"device", "precision"} <= set(results["compute"])


def test_the_table_of_an_evaluation_shows_the_scores(a_round) -> None:
    root, ran = a_round
    scores = json.loads((root / "scores.json").read_text())["scores"]
    assert f"Accuracy on {root / 'public'}, 9 test images" in ran["evaluate"].out
    assert cells(ran["evaluate"].out) == [
        [
            s["what"],
            s["network"],
            f"{100 * s['mean']:.2f}",
            f"{100 * s['std']:.2f}",
            str(s["n"]),
            str(s["images"]),
        ]
        for s in scores
    ]


def test_an_evaluation_may_go_without_random_images(a_round) -> None:
    root, _ = a_round
    result = done(
        *("evaluate", root / "set.safetensors", "--data", root / "public", "--no-random"),
        *("--trials", 1, "--epochs", 1, "--recipe", "short"),
    )
    assert "random" not in result.out


def test_an_evaluation_also_trains_on_the_data_of_each_site_alone(a_round) -> None:
    root, _ = a_round
    alone = [f"{site}={root / site / 'pictures'}" for site in HELD]
    result = done(
        *("evaluate", root / "set.safetensors", "--data", root / "public", "--no-random"),
        *("--alone", alone[0], "--alone", alone[1]),
        *("--trials", 2, "--epochs", 1, "--recipe", "short", "--json", root / "alone.json"),
    )

    scores = {s["what"]: s for s in json.loads((root / "alone.json").read_text())["scores"]}
    sizes = {f"{site} alone": sum(counts.values()) for site, counts in HELD.items()}
    assert list(scores) == ["collabdm", *sizes]
    assert {name: scores[name]["images"] for name in sizes} == sizes
    assert all(name in result.out for name in sizes)


def test_data_to_train_on_alone_needs_a_name(a_round) -> None:
    root, _ = a_round
    result = run(
        *("evaluate", root / "set.safetensors", "--data", root / "public"), "--alone", "pictures"
    )
    assert result.code == 2
    assert "`--alone` should be NAME=DATA; found 'pictures'" in result.err


def test_pictures_of_another_size_are_evaluated_if_resized(a_round, tmp_path) -> None:
    root, _ = a_round
    larger = picture_folder(
        tmp_path / "larger" / "test", side=11, channels=1, **dict.fromkeys(CLASSES, 1)
    ).parent
    command = (
        "evaluate",
        root / "set.safetensors",
        "--data",
        larger,
        "--no-random",
        "--trials",
        1,
        "--epochs",
        1,
    )
    assert run(*command).code == 2
    assert "3 test images" in done(*command, "--resize").out


def test_the_round_repeated_gives_the_same_bytes(a_round, tmp_path) -> None:
    root, _ = a_round
    again, ran = make_round(tmp_path, "--quiet")
    for name in (
        "plan.json",
        "north/answer.safetensors",
        "south/answer.safetensors",
        "set.safetensors",
        "set.png",
    ):
        assert (again / name).read_bytes() == (root / name).read_bytes(), name
    tallies = {site: f"`pictures`: {tally(counts)}\n" for site, counts in HELD.items()}
    assert {name: result.err for name, result in ran.items()} == {
        "plan": "",
        **tallies,
        "distill": "",
    }


def test_progress_is_shown_unless_quiet(a_round) -> None:
    _, ran = a_round
    assert "local distillation" in ran["north"].err
    assert "statistics" in ran["north"].err
    assert "refinement" in ran["distill"].err
    assert "3 of 3" in ran["south"].err
    assert "training on random real, pae" in ran["evaluate"].err


def test_a_failure_has_no_progress_above_it(a_round, tmp_path) -> None:
    root, _ = a_round
    one = root / "north" / "answer.safetensors"
    result = run("distill", root / "plan.json", one, one, "-o", tmp_path / "set.safetensors")
    assert result.err.startswith("error: ")


# --- inspect -------------------------------------------------------------------------------------


def rows_of(path: Path) -> dict[str, str]:
    return {name: value for name, value in cells(done("inspect", path).out) if name}


def test_inspect_shows_every_setting_of_a_plan(a_round) -> None:
    path = a_round[0] / "plan.json"
    plan, rows = read_plan(path), rows_of(path)
    assert rows["digest"] == plan.digest
    assert rows["classes"] == "cat, dog, owl"
    assert rows["image.side"] == "8"
    assert rows["sketch"] == "none"
    assert rows["network.width"] == "8"
    assert rows["probe.weights"] == plan.probe.weights
    assert {name.split(".")[0] for name in rows} == {"digest", *plan.model_dump()}
    assert f"plan.json: plan, {path.stat().st_size:,} bytes" in done("inspect", path).out


def test_inspect_shows_what_a_site_would_send(a_round) -> None:
    path = a_round[0] / "north" / "answer.safetensors"
    rows = rows_of(path)
    assert rows["site"] == "north"
    assert rows["plan_digest"] == read_plan(a_round[0] / "plan.json").digest
    assert rows["local.images"] == "uint8 4 x 3 x 8 x 8, 768 bytes"
    assert rows["statistics.codes"] == "float16 3 x 2 x 128, 1,536 bytes"
    assert rows["numbers of images"] == "cat: 6 images, dog: 3 images"
    assert f"contribution, {path.stat().st_size:,} bytes" in done("inspect", path).out


def test_inspect_shows_what_a_set_is_made_of(a_round) -> None:
    rows = rows_of(a_round[0] / "set.safetensors")
    assert rows["sites"] == (
        "north (cat: 6 images, dog: 3 images); south (dog: 5 images, owl: 4 images)"
    )
    assert rows["method"] == "collabdm"
    assert rows["images"] == "uint8 6 x 3 x 8 x 8, 1,152 bytes"
    assert rows["plan digest"] == read_plan(a_round[0] / "plan.json").digest


# --- a plan's options ----------------------------------------------------------------------------


def test_every_option_of_a_plan_is_in_it(tmp_path) -> None:
    done(
        *(
            "plan",
            "--data",
            "digits",
            "-o",
            tmp_path / "plan.json",
            "--sites",
            "a, b ,c",
            "--fraction",
            0.5,
        ),
        *(
            "--batch",
            "all",
            "--sketch",
            16,
            "--wire",
            "int8",
            "--images",
            "float32",
            "--no-pae",
            "--init",
            "noise",
        ),
        *(
            "--local",
            "random",
            "--local-images",
            2,
            "--merging",
            "uniform",
            "--augment",
            "crop_scale",
        ),
        *("--network", "ConvNet:width=16,depth=2,norm=group", "--preset", "paper"),
    )
    plan = read_plan(tmp_path / "plan.json")
    assert (plan.classes, plan.image.shape) == (tuple("0123456789"), (1, 8, 8))
    assert (plan.site_names, plan.fraction, plan.batch, plan.sketch) == (
        ("a", "b", "c"),
        0.5,
        None,
        16,
    )
    assert (plan.wire, plan.images, plan.pae, plan.merging) == ("int8", "float32", 1, "uniform")
    assert (plan.local.method, plan.local.start, plan.local.images) == ("random", "noise", 2)
    assert plan.augment == ("crop", "scale")
    assert (plan.network.width, plan.network.depth, plan.network.norm) == (16, 2, "group")
    assert (plan.steps, plan.local.steps, plan.refinement.passes) == (200, 1000, 1)  # of the preset


def test_an_option_wins_over_its_preset(tmp_path) -> None:
    options = (
        "--preset",
        "paper",
        "--steps",
        5,
        "--batch",
        "all",
        "--local-steps",
        3,
        "--network",
        NETWORK,
    )
    done("plan", "--data", "digits", "-o", tmp_path / "plan.json", *options)
    plan = read_plan(tmp_path / "plan.json")
    assert (plan.steps, plan.batch, plan.local.steps, plan.merging) == (5, None, 3, "uniform")


def test_a_budget_chooses_what_was_not_said(tmp_path) -> None:
    common = (
        "plan",
        "--data",
        "digits",
        "--budget",
        "80kB",
        "--network",
        NETWORK,
        "-o",
        tmp_path / "plan.json",
    )
    free = done(*common)
    assert "a site sends at most 7" in free.out
    plan = read_plan(tmp_path / "plan.json")
    assert (plan.sketch, plan.wire) == (None, "int8")
    done(*common, "--steps", 20, "--sketch", 0)
    plan = read_plan(tmp_path / "plan.json")
    assert (plan.steps, plan.sketch) == (20, None)


PLAN_CONFIG = """
preset = "paper"
sites = 2
seed = 8
ipc = 3
batch = "all"
network = "ConvNet:width=8,depth=1"

[local.matching]
spread = 0.5
"""


def test_a_configuration_may_set_what_has_no_option_and_options_win(tmp_path) -> None:
    (tmp_path / "plan.toml").write_text(PLAN_CONFIG)
    common = (
        "plan",
        "--data",
        "digits",
        "--config",
        tmp_path / "plan.toml",
        "-o",
        tmp_path / "plan.json",
    )
    done(*common)
    plan = read_plan(tmp_path / "plan.json")
    assert (plan.seed, plan.ipc, plan.sites, plan.batch, plan.network.width) == (8, 3, 2, None, 8)
    assert (plan.local.matching.spread, plan.local.steps, plan.merging) == (0.5, 1000, "uniform")
    done(
        *common,
        "--seed",
        0,
        "--sites",
        "a,b,c",
        "--network",
        "ConvNet:width=16,depth=1",
        "--preset",
        "best",
    )
    plan = read_plan(tmp_path / "plan.json")
    assert (plan.seed, plan.ipc, plan.site_names, plan.network.width) == (0, 3, ("a", "b", "c"), 16)
    assert (plan.local.matching.spread, plan.merging) == (0.5, "weighted")


def test_the_help_of_plan_shows_the_defaults_of_a_plan() -> None:
    text = " ".join(done("plan", "--help").out.replace("│", " ").split())
    plan = Plan(classes=("a", "b"), image={"channels": 1, "side": 8, "mean": (0,), "std": (1,)})
    defaults = {
        name: getattr(plan, name) for name in ("sites", "seed", "ipc", "steps", "batch", "fraction")
    }
    defaults |= {name: getattr(plan, name) for name in ("wire", "images", "merging", "method")}
    defaults |= {
        "init": plan.local.start,
        "local": make_plan(("a", "b"), plan.image, steps=1).local.method,
        "local-steps": plan.local.steps,
    }
    defaults |= {
        "network": plan.network.name,
        "passes": PRESETS["best"]["refinement"]["passes"],
        "preset": "best",
    }
    for name, default in defaults.items():
        after = text[text.index(f"--{name} ") :]
        shown = f"{default:g}" if isinstance(default, float) else default
        assert f"[default: ({shown})]" in after.partition(" --")[0], name


# --- usage ---------------------------------------------------------------------------------------


def test_help_names_every_command_in_the_order_of_the_round() -> None:
    text = done("--help").out
    places = [
        text.index(f"{name} ")
        for name in ("plan", "contribute", "distill", "evaluate", "simulate", "demo")
    ]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "command", ["plan", "contribute", "distill", "evaluate", "simulate", "demo", "inspect"]
)
def test_every_command_has_help(command) -> None:
    assert "Usage: collabdm" in done(command, "--help").out


def test_the_help_of_simulate_shows_the_defaults_of_an_experiment() -> None:
    text = " ".join(done("simulate", "--help").out.replace("│", " ").split())
    for name, field in experiment.Experiment.model_fields.items():
        if name in ("data", "plan"):
            continue
        after = text[text.index(f"--{name.replace('_', '-')} ") :]
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        assert not default or f"[default: ({default})]" in after[: after.index(" --", 2)], name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Organiser"),
        (("nothing",), "No such command 'nothing'"),
        (("plan",), "Missing option"),
        (("plan", "-o", "x", "--nothing"), "--nothing"),
        (("plan", "-o", "x", "--ipc", "ten"), "--ipc"),
        (("distill", "plan.json", "-o", "x"), "Missing argument"),
        (("contribute", "plan.json", "--data", "digits", "-o", "x"), "Missing option '--site'"),
        (("demo", "--threads", "-1"), "--threads"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(arguments, said, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.code == 2
    assert said in result.out + result.err
    assert not list(tmp_path.iterdir())


# --- stopping and going on -----------------------------------------------------------------------

SLOWLY = """
import signal, sys, time
from collabdm.cli import console, main
from collabdm.planning.presets import PRESETS
from collabdm.rounds import resumable
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background ignores it
resumable.STATE_EVERY_SECONDS = 0.0
console.Bars.__call__ = lambda *step: time.sleep(0.05)
main.main()
"""


def stop_by_hand(folder: Path, *arguments: object) -> None:
    """Run a command in a process of its own and press Ctrl-C once it has kept a state."""
    command = [sys.executable, "-c", SLOWLY, *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until = time.monotonic() + 120
        while (
            not list(folder.glob(".*.state"))
            and process.poll() is None
            and time.monotonic() < until
        ):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopped; the same command resumes the work" in err
    assert "Traceback" not in err
    assert out == ""


def steps_reported(*arguments: object) -> list[tuple[str, int]]:
    """The steps that a command makes, in order."""
    steps: list[tuple[str, int]] = []
    with watched(lambda event: steps.append((event.label, event.done))):
        done(*arguments)
    return steps


def assert_goes_on(
    first: str, total: int, folder: Path, command: tuple[object, ...], whole: bytes
) -> None:
    """The folder has a state and no half file; the same command resumes, with the same bytes."""
    output = Path(str(command[command.index("-o") + 1]))
    assert [path.name for path in folder.iterdir()] == [f".{output.name}.state"]
    made = [at for label, at in steps_reported(*command) if label == first]
    assert made == list(range(made[0], total + 1))
    assert made[0] > 1
    assert output.read_bytes() == whole
    assert not list(folder.glob(".*"))


def test_a_site_stopped_by_ctrl_c_goes_on_to_the_same_bytes(tmp_path) -> None:
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    out.mkdir()
    done("plan", "--data", "digits", *TINY, "--local-steps", 40, "-o", plan)
    common = (
        "contribute",
        plan,
        *OPEN,
        "--data",
        "digits",
        "--site",
        "a",
        "--threads",
        1,
        "--precision",
        "float32",
    )
    done(*common, "-o", tmp_path / "whole.safetensors")
    command = (*common, "-o", out / "a.safetensors")
    stop_by_hand(out, *command)
    assert_goes_on(
        "local distillation", 40, out, command, (tmp_path / "whole.safetensors").read_bytes()
    )


def test_a_server_stopped_by_ctrl_c_goes_on_to_the_same_bytes(a_round, tmp_path) -> None:
    root, out = tmp_path, tmp_path / "out"
    out.mkdir()
    done("plan", "--data", "digits", *TINY, "--passes", 14, "-o", root / "plan.json")
    done(
        "contribute",
        root / "plan.json",
        *OPEN,
        "--data",
        "digits",
        "--site",
        "a",
        "-o",
        root / "a.safetensors",
    )
    common = (
        "distill",
        root / "plan.json",
        root / "a.safetensors",
        "--threads",
        1,
        "--precision",
        "float32",
    )
    done(*common, "-o", root / "whole.safetensors")
    command = (*common, "-o", out / "set.safetensors")
    stop_by_hand(out, *command)
    assert_goes_on("refinement", 42, out, command, (root / "whole.safetensors").read_bytes())


def test_the_state_of_other_data_is_not_taken_up(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(resumable, "STATE_EVERY_SECONDS", -1.0)
    done("plan", "--classes", "cat,dog", "--image-size", "3x8", *TINY, "-o", tmp_path / "plan.json")
    command = (
        "contribute",
        tmp_path / "plan.json",
        *OPEN,
        "--site",
        "a",
        "-o",
        tmp_path / "a.safetensors",
        "--data",
    )
    first, second = (picture_folder(tmp_path / str(n), cat=n, dog=n) for n in (3, 4))
    with watched(stopper(1)):
        assert run(*command, first).code == 130
    assert (tmp_path / ".a.safetensors.state").exists()
    assert steps_reported(*command, second)[0] == ("local distillation", 1)


def stopper(after: int) -> object:
    """Progress that presses Ctrl-C at the given step."""
    seen = 0

    def progress(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == after:
            raise KeyboardInterrupt

    return progress


def test_an_error_is_one_message_in_a_process_of_its_own_too(tmp_path) -> None:
    command = [sys.executable, "-m", "collabdm", "inspect", str(tmp_path / "nothing")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr
        == f"error: {tmp_path / 'nothing'} should be a readable file; No such file or directory\n"
    )


# --- simulate ------------------------------------------------------------------------------------

CONFIG = """
data = "digits"
method = "collabdm"
sites = 2
beta = 0.5
seed = 4
per_class = 12
trials = 2
recipe = "short"
epochs = 2
networks = ["ConvNet"]
compare = ["localdm", "random"]
preset = "best"

[plan]
ipc = 1
steps = 3
batch = 4
network = { name = "ConvNet", width = 8, depth = 1 }

[plan.local]
steps = 2

[plan.refinement]
passes = 2
"""

SIMULATE = (
    *(
        "simulate",
        "--no-report",
        "--data",
        "digits",
        "--method",
        "collabdm",
        "--compare",
        "localdm,random",
        "--networks",
        "ConvNet",
    ),
    *(*TINY, *SPLIT, *SCORED),
)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("simulated") / "sim"
    return folder, done(*SIMULATE, "-o", folder)


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_simulation_leaves_the_files_that_sites_would_exchange(simulated) -> None:
    folder, result = simulated
    assert set(everything(folder)) == {
        *("experiment.json", "partition.json", "results.json", "plan.json"),
        *("distilled.safetensors", "distilled.png"),
        *("contributions/site-1.safetensors", "contributions/site-2.safetensors"),
        *("localdm/plan.json", "localdm/distilled.safetensors"),
        *("localdm/contributions/site-1.safetensors", "localdm/contributions/site-2.safetensors"),
    }
    assert f"in {folder}: plan.json, contributions/" in result.out.replace("\n", "")


def test_its_table_shows_accuracies_and_the_bytes_that_a_site_sends(simulated) -> None:
    folder, result = simulated
    assert "Accuracy on digits, 2 sites" in result.out
    rows = {row[0]: row[1:] for row in cells(result.out)}
    scores = {s["what"]: s for s in json.loads((folder / "results.json").read_text())["scores"]}
    assert set(rows) == set(scores) == {"collabdm", "localdm", "random real"}
    for what, (network, mean, std, n, images, _) in rows.items():
        score = scores[what]
        assert [network, mean, std] == [
            "ConvNet",
            f"{100 * score['mean']:.2f}",
            f"{100 * score['std']:.2f}",
        ]
        assert [n, images] == ["2", str(score["images"])]
    largest = max(path.stat().st_size for path in (folder / "contributions").iterdir())
    assert [rows[what][-1] for what in ("collabdm", "random real")] == [f"{largest:,}", "-"]


def test_a_configuration_says_the_same_as_options(simulated, tmp_path) -> None:
    folder, first = simulated
    (tmp_path / "round.toml").write_text(CONFIG)
    before = {path: path.stat().st_ino for path in folder.rglob("*.safetensors")}
    with watched(lambda *step: pytest.fail(f"made again: {step}")):
        second = done("simulate", "--no-report", "--config", tmp_path / "round.toml", "-o", folder)
    assert second.out == first.out
    assert {path: path.stat().st_ino for path in folder.rglob("*.safetensors")} == before


def test_an_option_wins_over_the_configuration(simulated, tmp_path) -> None:
    (tmp_path / "round.toml").write_text(CONFIG)
    for option in (
        ("--seed", "5"),
        ("--steps", "4"),
        ("--network", "ConvNet:width=9,depth=1"),
        ("--beta", "0"),
    ):
        result = run("simulate", "--config", tmp_path / "round.toml", "-o", simulated[0], *option)
        assert result.code == 2
        assert (
            "should be empty or contain this experiment; found another experiment: choose another folder"
            in result.err
        )


def test_a_refused_folder_is_left_as_it_was(simulated) -> None:
    before = everything(simulated[0])
    assert run(*SIMULATE, "--seed", "9", "-o", simulated[0]).code == 2
    assert everything(simulated[0]) == before


@pytest.mark.parametrize("words", ['networks = "ConvNet"\ncompare = "localdm, random"', "beta = 0"])
def test_a_configuration_may_use_the_words_of_the_options(words, tmp_path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        "collabdm.cli.simulating.run_simulation", lambda experiment, *_: asked.append(experiment)
    )
    keys = tomllib.loads(words)
    lines = [line for line in CONFIG.splitlines() if line.split(" = ")[0] not in keys]
    (tmp_path / "words.toml").write_text(
        "\n".join([words, *lines]).replace("batch = 4", 'batch = "all"')
    )
    options = [text for key, value in keys.items() for text in (f"--{key}", str(value))]
    done("simulate", "--config", tmp_path / "words.toml", "-o", tmp_path)
    done(*SIMULATE, *options, "--batch", "all", "-o", tmp_path)
    assert asked[0] == asked[1]
    assert asked[0].digest == asked[1].digest


def test_a_simulation_stopped_anywhere_goes_on_without_repeating_finished_parts(
    simulated, tmp_path
) -> None:
    folder, whole = simulated
    inodes: dict[Path, int] = {}
    for after in (1, 7, 9, 8, 5, 3, 4, 5):  # steps made before the next Ctrl-C
        with watched(stopper(after)):
            assert run(*SIMULATE, "-o", tmp_path).code == 130
        now = {path: path.stat().st_ino for path in tmp_path.rglob("*.safetensors")}
        assert inodes.items() <= now.items()
        inodes = now
        assert not list(tmp_path.rglob("*.part"))
    assert len(inodes) == 6
    assert done(*SIMULATE, "-o", tmp_path).out.splitlines()[:-1] == whole.out.splitlines()[:-1]
    assert everything(tmp_path) == everything(folder)


def test_a_folder_whose_data_changed_is_refused(tmp_path) -> None:
    for split in ("train", "test"):
        picture_folder(tmp_path / "data" / split, cat=4, dog=4)
    command = (
        *(
            "simulate",
            "--data",
            tmp_path / "data",
            "-o",
            tmp_path / "sim",
            *TINY,
            "--sites",
            1,
            "--compare",
            "",
        ),
        *("--trials", 1, "--epochs", 1),
    )
    done(*command)
    picture_folder(tmp_path / "data" / "train", cat=5, dog=4)
    result = run(*command)
    assert result.code == 2
    assert "found the same with another data" in result.err


def test_a_damaged_contribution_is_made_again(simulated, tmp_path) -> None:
    folder, _ = simulated
    for name, content in everything(folder).items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "distilled.safetensors").unlink()
    damaged = tmp_path / "contributions" / "site-1.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    steps = steps_reported(*SIMULATE, "-o", tmp_path)
    assert {what for what, _ in steps} == {
        "site-1: local distillation",
        "site-1: statistics",
        "refinement",
    }
    assert everything(tmp_path) == everything(folder)


def test_the_demonstration_runs_its_settings_through_simulate(tmp_path, monkeypatch) -> None:
    plan = demo.DEMO.plan | {
        "steps": 2,
        "network": {"width": 8, "depth": 1},
        "local": {"steps": 1, "batch": 4},
    }
    small = demo.DEMO.model_copy(update={"plan": plan, "trials": 1, "epochs": 1, "per_class": 8})
    monkeypatch.setattr(demo, "DEMO", small)
    result = done("demo", "-o", tmp_path / "demo", "--quiet")
    assert [line.split(" (")[0] for line in result.err.splitlines()] == [
        "training data, digits: 1,442 images of 10 classes",
        "test data, digits: 355 images of 10 classes",
    ]
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert results["complete"]
    assert results["digest"] == small.digest
    assert "Accuracy on digits" in result.out
    for line in (small.method, "localdm", "random real", "site-1 alone", "all the data"):
        assert line in result.out
    again = simulate(small, tmp_path / "again")
    assert again.document()["scores"] == results["scores"]
    with Image.open(io.BytesIO((tmp_path / "demo" / "distilled.png").read_bytes())) as picture:
        assert picture.format == "PNG"


def test_any_field_of_a_plan_can_be_said_in_a_file(tmp_path) -> None:
    said = tmp_path / "plan.toml"
    said.write_text(
        'steps = 7\nipc = 3\n[refinement.matching]\nlearning_rate = 1.5\nschedule = "cosine"\n'
    )
    done(
        "plan",
        "--data",
        "digits",
        "--config",
        said,
        "--ipc",
        4,
        "--network",
        NETWORK,
        "-o",
        tmp_path / "plan.json",
    )
    plan = read_plan(tmp_path / "plan.json")
    assert (plan.steps, plan.ipc, plan.refinement.passes) == (7, 4, 16)
    assert (plan.refinement.matching.learning_rate, plan.refinement.matching.schedule) == (
        1.5,
        "cosine",
    )
    said.write_text("hurry = true\n")
    assert (
        "`hurry` is not a setting"
        in run("plan", "--data", "digits", "--config", said, "-o", tmp_path / "p").err
    )
