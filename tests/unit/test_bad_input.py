"""Every mistake is met by one message before any work is done, and leaves nothing behind."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import safetensors.torch
import torch
from command import NETWORK, OPEN, Result, done, picture_folder, run, watched
from pictures import draw, parquet, pixels
from safetensors import safe_open
from tiny import COLOUR, answers, tiny_data, tiny_plan

from collabdm.data.partition import Partition
from collabdm.documents import outcome_files
from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.outcome_files import read_distilled, write_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import write_plan
from collabdm.methods.collabdm import contribute, distill
from collabdm.rounds.contributions import read_contribution

SITES = ("north", "south")
HELD = [[3, 2, 0], [0, 4, 1]]


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch) -> None:
    def unreachable(*_: object) -> None:
        raise ConnectionError("no network here")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tiny_plan(COLOUR, site_names=SITES, sites=2)


@pytest.fixture(scope="module")
def good(plan, tmp_path_factory) -> Path:
    """A folder with a good plan, contributions, set and pictures."""
    folder = tmp_path_factory.mktemp("good")
    write_plan(plan, folder / "plan.json")
    sent = [
        contribute(plan, tiny_data(counts, 0, plan), site)
        for counts, site in zip(HELD, SITES, strict=True)
    ]
    for answer in sent:
        write_contribution(answer, folder / f"{answer.site}.st")
    write_distilled(distill(plan, sent), folder / "set.st")
    picture_folder(folder / "pictures", cat=2, dog=2)
    for split in ("train", "test"):
        picture_folder(folder / "public" / split, cat=2, dog=2, owl=2)
    return folder


@pytest.fixture
def here(good, tmp_path, monkeypatch) -> Path:
    """The working folder, a copy of the good one."""
    shutil.copytree(good, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


CONTRIBUTE = (
    "contribute",
    "plan.json",
    *OPEN,
    "--data",
    "pictures",
    "--site",
    "north",
    "-o",
    "answer.st",
)
DISTILL = ("distill", "plan.json", "north.st", "south.st", "-o", "made.st")
EVALUATE = (
    "evaluate",
    "set.st",
    "--data",
    "public",
    "--trials",
    1,
    "--epochs",
    1,
    "--json",
    "scores.json",
)
PLAN = (
    "plan",
    "--classes",
    "cat,dog",
    "--image-size",
    "1x8",
    "--network",
    NETWORK,
    "-o",
    "new.json",
)
SIMULATE = ("simulate", "--data", "digits", "-o", "sim")


def entries() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def without_tally(text: str) -> str:
    """What a command wrote, without the leading lines that count the pictures it has read."""
    lines = text.splitlines(keepends=True)
    while lines and re.search(r": [\d,]+ images of \d+ classes \(", lines[0]):
        lines.pop(0)
    return "".join(lines)


def refused(*arguments: object, said: tuple[str, ...] = ()) -> Result:
    """A command that exits with 2, says why in one message, starts no work and changes no file."""
    before = entries()
    with watched(lambda *step: pytest.fail(f"work was done: {step}")):
        result = run(*arguments)
    message = " ".join(without_tally(result.err).split())
    assert result.code == 2, result
    assert (result.out, result.err.count("error: ")) == ("", 1), result
    assert message.startswith("error: ")
    for part in said:
        assert part in message
    assert entries() == before
    return result


def with_option(command: tuple[object, ...], *option: object) -> tuple[object, ...]:
    """The command with an option in place of the one of that name, or after it."""
    if option[0] in command:
        at = command.index(option[0])
        return (*command[:at], *option[:2], *command[at + 2 :], *option[2:])
    return (*command, *option)


# --- plans ---------------------------------------------------------------------------------------


def edited(**changes: Any) -> Callable[[bytes], bytes]:
    """A plan with fields changed by hand."""
    return lambda content: json.dumps(json.loads(content) | changes).encode()


DAMAGED_PLANS: dict[str, tuple[Callable[[bytes], bytes], tuple[str, ...]]] = {
    "cut off": (
        lambda content: content[: len(content) // 2],
        ("plan.json should be a plan, JSON", "text that is not"),
    ),
    "empty": (lambda content: b"", ("should be a plan, JSON",)),
    "binary": (lambda content: bytes(range(256)), ("should be a plan, JSON",)),
    "a list": (lambda content: b"[]", ("should be a plan, a JSON object; found list",)),
    "of another kind": (edited(format="x"), ("format should be collabdm/plan; found 'x'",)),
    "of another version": (
        edited(version=2),
        ("version should be 1; found 2", "another version of collabdm"),
    ),
    "edited": (edited(seed=8), ("digest should be", "found", "ask its author for the original")),
    "with an unknown key": (
        edited(colour="red"),
        ("`colour` is not a setting", "check its spelling"),
    ),
    "with NaN": (edited(fraction=float("nan")), ("`fraction` should be", "found")),
    "with a negative number": (
        edited(steps=-1),
        ("`steps` should be greater than or equal to 0; found -1",),
    ),
    "too large": (
        lambda content: content + b" " * 5_000_000,
        ("at most 4,194,304 bytes; found 5,00",),
    ),
}


@pytest.mark.parametrize("damage", DAMAGED_PLANS)
@pytest.mark.parametrize("command", [CONTRIBUTE, DISTILL], ids=lambda c: c[0])
def test_a_damaged_plan_is_refused(command, damage, here) -> None:
    change, said = DAMAGED_PLANS[damage]
    Path("plan.json").write_bytes(change(Path("plan.json").read_bytes()))
    refused(*command, said=said)
    refused("inspect", "plan.json", said=("plan.json",))


@pytest.mark.parametrize("command", [CONTRIBUTE, DISTILL], ids=lambda c: c[0])
def test_a_machine_that_draws_other_weights_is_refused(command, here, plan) -> None:
    probe = plan.probe.model_copy(update={"weights": "0" * 64})
    write_as(plan.model_copy(update={"probe": probe}))
    refused(
        *command,
        said=("weights of step 0 should have digest 0000000000000000…; this machine draws",),
    )


@pytest.mark.parametrize("command", [CONTRIBUTE, DISTILL], ids=lambda c: c[0])
def test_a_machine_that_computes_other_embeddings_is_refused(command, here, plan) -> None:
    probe = plan.probe.model_copy(
        update={"embedding": tuple(v + 0.1 for v in plan.probe.embedding)}
    )
    write_as(plan.model_copy(update={"probe": probe}))
    refused(*command, said=("embedding of the probe image should agree", "compare the versions"))


def test_a_plan_without_a_probe_is_refused(here, plan) -> None:
    write_as(plan.model_copy(update={"probe": None}))
    refused(*CONTRIBUTE, said=("the plan should contain a probe; found none",))


@pytest.mark.parametrize("command", [CONTRIBUTE, DISTILL], ids=lambda c: c[0])
def test_a_plan_of_a_method_that_is_not_here_is_refused(command, here, plan) -> None:
    write_as(plan.model_copy(update={"method": "magic"}))
    refused(*command, said=("`method` should be one of collabdm, ", "found 'magic'"))


def write_as(plan: Plan) -> None:
    """Make the plan of the folder another one, with contributions that answer it."""
    write_plan(plan, "plan.json")
    for site in SITES:
        rewrite(f"{site}.st", header={"plan_digest": plan.digest})


# --- contributions -------------------------------------------------------------------------------


def rewrite(
    path: str, header: dict[str, Any] | None = None, **tensors: torch.Tensor | None
) -> None:
    """Change parts of a safetensors document; `a__b` names part `a.b`, None takes it away."""
    parts = safetensors.torch.load_file(path)
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()["collabdm"])
    parts |= {name.replace("__", "."): value for name, value in tensors.items()}
    kept = {name: value for name, value in parts.items() if value is not None}
    safetensors.torch.save_file(kept, path, {"collabdm": json.dumps(said | (header or {}))})


def part(path: str, name: str) -> torch.Tensor:
    return safetensors.torch.load_file(path)[name]


def cut(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:-10])


DAMAGED_CONTRIBUTIONS: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "cut off": (lambda: cut("south.st"), ("whole safetensors file", "cut off", "ask for it again")),
    "empty": (lambda: Path("south.st").write_bytes(b""), ("whole safetensors file",)),
    "a plan": (
        lambda: Path("south.st").write_bytes(Path("plan.json").read_bytes()),
        ("whole safetensors file",),
    ),
    "a set": (
        lambda: Path("south.st").write_bytes(Path("set.st").read_bytes()),
        ("format should be collabdm/contribution; found 'collabdm/distilled'",),
    ),
    "absent": (lambda: Path("south.st").unlink(), ("should be a readable file; No such file",)),
    "too large": (
        lambda: Path("south.st").write_bytes(b"\0" * 2_000_000),
        ("should have at most", "found 2,000,000"),
    ),
    "of another version": (
        lambda: rewrite("south.st", {"version": 7}),
        ("version should be 1; found 7",),
    ),
    "of another plan": (
        lambda: rewrite("south.st", {"plan_digest": "0" * 64}),
        ("plan digest should be", "found 0000000000000000…: it answers another plan"),
    ),
    "of a site that is not invited": (
        lambda: rewrite("south.st", {"site": "east"}),
        ("`site` should be one of north, south; found 'east'",),
    ),
    "of a site that has answered": (
        lambda: rewrite("south.st", {"site": "north"}),
        ("each site should contribute once; found north more than once: remove one of the files",),
    ),
    "with other classes": (
        lambda: rewrite("south.st", {"classes": ["cat", "dog", "cow"]}),
        ("classes should be ('cat', 'dog', 'owl'); found ('cat', 'dog', 'cow')",),
    ),
    "with NaN": (
        lambda: rewrite(
            "south.st", statistics__codes=part("south.st", "statistics.codes") * torch.nan
        ),
        ("statistics should be finite; found NaN or infinity",),
    ),
    "with statistics of another shape": (
        lambda: rewrite(
            "south.st", statistics__codes=part("south.st", "statistics.codes")[:, :1].contiguous()
        ),
        ("statistics should be (steps, classes, width) = (3, 2, 'r'); found (3, 1, 128)",),
    ),
    "with statistics of another width": (
        lambda: rewrite(
            "south.st",
            statistics__codes=part("south.st", "statistics.codes")[:, :, :9].contiguous(),
        ),
        ("should have 128 numbers; found 9",),
    ),
    "with impossible counts": (
        lambda: rewrite("south.st", statistics__totals=torch.tensor([0, 0])),
        ("counts should be 1 <= images in a batch <= images of the class",),
    ),
    "with an image too few": (
        lambda: rewrite(
            "south.st",
            local__images=part("south.st", "local.images")[1:].contiguous(),
            local__labels=part("south.st", "local.labels")[1:].contiguous(),
        ),
        ("images per class should be [0, 2, 2]; found [0, 1, 2]",),
    ),
    "with images of another size": (
        lambda: rewrite(
            "south.st", local__images=part("south.st", "local.images")[:, :, :4, :4].contiguous()
        ),
        ("images should be (3, 8, 8); found (3, 4, 4)",),
    ),
    "with a part too few": (
        lambda: rewrite("south.st", statistics__steps=None),
        ("missing ['statistics.steps']",),
    ),
    "with a part too many": (
        lambda: rewrite("south.st", more=torch.zeros(1)),
        ("unknown ['more']",),
    ),
}


@pytest.mark.parametrize("damage", DAMAGED_CONTRIBUTIONS)
def test_a_damaged_contribution_is_refused_by_its_file_or_site(damage, here) -> None:
    change, said = DAMAGED_CONTRIBUTIONS[damage]
    change()
    result = refused(*DISTILL, said=said)
    assert "south" in result.err or "north" in result.err


def test_more_contributions_than_sites_are_refused(here, plan) -> None:
    free = tiny_plan(COLOUR, sites=2)
    write_plan(free, "plan.json")
    for answer in answers(free, [[1, 1, 1]] * 3):
        write_contribution(answer, f"{answer.site}.st")
    command = ("distill", "plan.json", "site-1.st", "site-2.st", "site-3.st", "-o", "made.st")
    refused(*command, said=("the plan is for 2 sites; found 3 contributions",))


def test_a_class_at_no_site_is_named_and_may_be_done_without(here) -> None:
    command = ("distill", "plan.json", "north.st", "-o", "made.st")
    refused(
        *command,
        said=("every class should be at some site; no contribution has owl", "wait for a site"),
    )
    done(*command, "--allow-missing")
    made = read_distilled("made.st")
    assert made.images.counts().tolist() == [2, 2, 0]


# --- distilled sets ------------------------------------------------------------------------------

DAMAGED_SETS: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "cut off": (lambda: cut("set.st"), ("whole safetensors file", "cut off")),
    "a contribution": (
        lambda: Path("set.st").write_bytes(Path("north.st").read_bytes()),
        ("format should be collabdm/distilled; found 'collabdm/contribution'",),
    ),
    "of another version": (
        lambda: rewrite("set.st", {"version": 2}),
        ("version should be 1; found 2",),
    ),
    "with a plan edited by hand": (
        lambda: rewrite("set.st", {"plan": {"classes": ["cat", "dog"], "ipc": -1}}),
        ("`ipc` should be greater than or equal to 1; found -1",),
    ),
    "with NaN": (
        lambda: rewrite("set.st", images=torch.full((6, 3, 8, 8), torch.nan)),
        ("images should be finite; found NaN or infinity",),
    ),
    "with images of another size": (
        lambda: rewrite("set.st", images=torch.zeros(6, 3, 4, 4, dtype=torch.uint8)),
        ("images should be (3, 8, 8), as in the plan; found (3, 4, 4)",),
    ),
    "with an image too few": (
        lambda: rewrite(
            "set.st", **{name: part("set.st", name)[1:].clone() for name in ("images", "labels")}
        ),
        ("there should be 2 images of a class; found [1, 2]",),
    ),
    "with labels outside": (
        lambda: rewrite("set.st", labels=part("set.st", "labels") + 1),
        ("labels should be in 0 .. 2 (there are 3 classes); found 1 .. 3",),
    ),
    "with other classes": (
        lambda: rewrite("set.st", {"classes": ["a", "b", "c"]}),
        ("classes should be those of the plan, ('cat', 'dog', 'owl'); found ('a', 'b', 'c')",),
    ),
    "with wrong counts of images held": (
        lambda: rewrite("set.st", {"sites": {"north": [1, 2]}}),
        ("each site should have 3 counts, none negative",),
    ),
}


@pytest.mark.parametrize("damage", DAMAGED_SETS)
def test_a_damaged_set_is_refused(damage, here) -> None:
    change, said = DAMAGED_SETS[damage]
    change()
    refused(*EVALUATE, said=("set.st", *said))


def test_a_set_that_is_too_large_is_refused_before_it_is_read(here, monkeypatch) -> None:
    monkeypatch.setattr(outcome_files, "DISTILLED_LIMIT", 1000)
    refused(*EVALUATE, said=("set.st should have at most 1,000 bytes; found",))


@pytest.mark.parametrize("name", ["pictures", "nothing", "other.st", "other.bin"])
def test_inspect_refuses_what_is_no_document(name, here) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, "other.st")
    Path("other.bin").write_bytes(b"something else")
    refused(
        "inspect", name, said=(f"{name} should be", "found" if name.startswith("other") else ";")
    )


# --- data ----------------------------------------------------------------------------------------


def npz(**arrays: object) -> None:
    np.savez("held.npz", **{"images": np.zeros((4, 8, 8, 3), np.uint8), **arrays})


def small_parquet(labels: list, names: list[str] | None) -> None:
    parquet(Path("held.parquet"), labels, names)
    Path("x.png").unlink()


BAD_DATA: dict[str, tuple[Callable[[], object], str, tuple[str, ...]]] = {
    "nothing": (
        lambda: None,
        "./nothing",
        ("`./nothing` should be a folder, a file or one of digits", "it does not exist"),
    ),
    "a path that could be a name of the hub": (
        lambda: None,
        "some/set",
        ("`some/set` should be a folder", "it does not exist", "of the hub, use hub:some/set"),
    ),
    "no data set of the hub": (
        lambda: None,
        "hub:some/set",
        ("`hub:some/set` should be a data set of the hub", "no network here"),
    ),
    "no name of the hub": (
        lambda: None,
        "hub:set",
        ("`hub:set` should be hub:owner/name",),
    ),
    "an empty folder": (
        lambda: Path("held").mkdir(),
        "held",
        (
            "should contain one subfolder of pictures for each class",
            "parquet",
            "found 0 subfolders",
        ),
    ),
    "folders without a picture": (
        lambda: (
            Path("held/cat").mkdir(parents=True),
            Path("held/cat/notes.txt").write_text("none"),
        ),
        "held",
        (
            "one subfolder of pictures for each class",
            "found 1 subfolder without a picture",
            "notes.txt",
        ),
    ),
    "a picture that is none": (
        lambda: (picture_folder(Path("held"), cat=1), Path("held/cat/a.png").write_text("text")),
        "held",
        ("a.png` should be a whole image file; it cannot be read",),
    ),
    "pictures of two sizes": (
        lambda: (
            picture_folder(Path("held"), cat=1),
            draw(Path("held/cat/x.png"), pixels(0, 3, 16)),
        ),
        "held",
        ("one size and one number of channels; found", "16 x 16 with 3 channel(s): 1 images"),
    ),
    "an archive cut off": (
        lambda: (npz(labels=[0] * 4), cut("held.npz")),
        "held.npz",
        ("cannot be read",),
    ),
    "an archive without labels": (
        npz,
        "held.npz",
        ("should contain `images` and `labels`", "found images"),
    ),
    "labels outside the classes": (
        lambda: npz(labels=[0, 1, 2, 3], classes=["cat", "dog", "owl"]),
        "held.npz",
        ("labels of `held.npz` should be in 0 .. 2; found 3",),
    ),
    "negative labels": (
        lambda: npz(labels=[0, 1, -1, 0], classes=["cat", "dog", "owl"]),
        "held.npz",
        ("labels of `held.npz` should be 0 or more; found -1",),
    ),
    "a class that the plan lacks": (
        lambda: npz(labels=[0, 1, 0, 1], classes=["cat", "cow"]),
        "held.npz",
        ("classes of the data should be among the plan's ['cat', 'dog', 'owl']", "lacks ['cow']"),
    ),
    "numbers in place of names": (
        lambda: npz(labels=[0, 1, 0, 1]),
        "held.npz",
        ("should be among the plan's ['cat', 'dog', 'owl']; found ['0', '1']",),
    ),
    "no images": (
        lambda: np.savez(
            "held.npz", images=np.zeros((0, 8, 8, 3), np.uint8), labels=np.zeros(0, int)
        ),
        "held.npz",
        ("`held.npz` should contain images; found none",),
    ),
    "pictures of four pixels": (
        lambda: small_parquet([0, 1], ["cat", "dog"]),
        "held.parquet",
        (
            "(channels, height, width) = (3, 8, 8), as in the plan; found (3, 4, 4)",
            "`--resize` brings them to it",
        ),
    ),
    "a table that is none": (
        lambda: Path("held.parquet").write_text("?"),
        "held.parquet",
        ("should be a parquet file; it cannot be read",),
    ),
    "a text file": (
        lambda: Path("held.txt").write_text("?"),
        "held.txt",
        ("should be a folder, or an .npz, .parquet or .tar file; found a `.txt` file",),
    ),
}


@pytest.mark.parametrize("bad", BAD_DATA)
def test_data_that_does_not_fit_is_refused(bad, here) -> None:
    make, name, said = BAD_DATA[bad]
    make()
    refused(*with_option(CONTRIBUTE, "--data", name), said=said)


@pytest.mark.parametrize(("side", "channels"), [(12, 3), (8, 1), (9, 1)])
def test_pictures_of_another_size_or_colour_are_refused_and_resize_mends_it(
    side, channels, here, plan
) -> None:
    picture_folder(Path("held"), side, channels, cat=2, owl=1)
    command = with_option(CONTRIBUTE, "--data", "held")
    refused(
        *command,
        said=(
            f"(3, 8, 8), as in the plan; found ({channels}, {side}, {side})",
            "`--resize` brings",
        ),
    )
    done(*command, "--resize")
    assert read_contribution("answer.st", plan).statistics.totals.tolist() == [2, 1]


def test_pictures_of_two_sizes_are_mended_by_resize_too(here) -> None:
    picture_folder(Path("held"), 8, cat=1)
    picture_folder(Path("held"), 12, dog=2)
    done(*with_option(CONTRIBUTE, "--data", "held"), "--resize")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (
            {"cat": 1, "cow": 1},
            ("among the plan's ['cat', 'dog', 'owl']", "of which the plan lacks ['cow']"),
        ),
        ({}, ("it does not exist",)),
    ],
)
def test_an_evaluation_on_data_of_other_classes_is_refused(counts, said, here) -> None:
    for split in ("train", "test"):
        picture_folder(Path("./other") / split, **counts)
    refused(*with_option(EVALUATE, "--data", "./other"), said=said)


@pytest.mark.parametrize(("split", "missing"), [("train", "test"), ("test", "train")])
def test_an_evaluation_names_the_split_that_it_lacks(split, missing, here) -> None:
    picture_folder(Path("other") / split, cat=1, dog=1)
    refused(
        *with_option(EVALUATE, "--data", "other"),
        said=(f"should have a split `{missing}`; found {split}",),
    )


@pytest.mark.parametrize("odd", ["train", "test"])
def test_an_evaluation_refuses_pictures_of_another_size(odd, here) -> None:
    for split in ("train", "test"):
        picture_folder(Path("other") / split, 11 if split == odd else 8, cat=1, dog=1)
    refused(
        *with_option(EVALUATE, "--data", "other"),
        said=("found (3, 11, 11)", "`--resize` brings them to it"),
    )


# --- outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [PLAN, CONTRIBUTE, DISTILL], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("output", "said"), [("set.st/below/x", "should be writable"), ("pictures", "found a folder")]
)
def test_an_output_that_cannot_be_written_is_refused(command, output, said, here) -> None:
    refused(*with_option(command, "-o", output), said=(said,))


@pytest.mark.parametrize(
    ("output", "said"), [("set.st/x", "should be writable"), ("pictures", "found a folder")]
)
def test_scores_that_cannot_be_written_are_refused(output, said, here) -> None:
    refused(*with_option(EVALUATE, "--json", output), said=(said,))


def test_a_simulation_below_a_file_is_refused(here) -> None:
    refused(*SIMULATE[:-1], "set.st/below", said=("should be writable",))


@pytest.mark.parametrize(
    ("command", "option", "output"),
    [
        (CONTRIBUTE, "-o", "plan.json"),
        (DISTILL, "-o", "plan.json"),
        (DISTILL, "-o", "north.st"),
        (DISTILL, "-o", "made.png"),  # where its picture goes
        (EVALUATE, "--json", "set.st"),
    ],
)
def test_an_output_in_the_place_of_an_input_is_refused(command, option, output, here) -> None:
    said = f"{output} should differ from the other files of this command; found a file that is also read or written"
    refused(*with_option(command, option, output), said=(said,))


def test_a_picture_that_cannot_be_written_is_told_before_the_work(here) -> None:
    Path("made.png").mkdir()
    refused(*DISTILL, said=("made.png should be a file to write; found a folder",))


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--sites", "0"), "`sites` should be greater than or equal to 1; found 0"),
        (("--sites", "-3"), "`sites` should be greater than or equal to 1; found -3"),
        (("--sites", "a,a"), "`site_names` should be 2 distinct names"),
        (("--sites", "a b,c"), "`site_names.0`"),
        (("--sites", "²"), "`site_names.0`"),
        (("--seed", "-1"), "`seed` should be greater than or equal to 0; found -1"),
        (("--ipc", "0"), "`ipc` should be greater than or equal to 1; found 0"),
        (("--steps", "-1"), "`steps` should be greater than or equal to 0; found -1"),
        (("--batch", "0"), "`batch` should be a number of at least 1, or all; found '0'"),
        (("--batch", "some"), "`batch` should be a number of at least 1, or all; found 'some'"),
        (("--batch", "²"), "`batch` should be a number of at least 1, or all; found '²'"),
        (("--sketch", "-1"), "`sketch` should be greater than or equal to 1; found -1"),
        (("--local-steps", "-1"), "`local.steps` should be greater than or equal to 0; found -1"),
        (("--local-images", "-1"), "`local.images` should be greater than or equal to 0; found -1"),
        (("--passes", "-1"), "`refinement.passes` should be greater than or equal to 0; found -1"),
        (("--fraction", "0"), "`fraction` should be greater than 0; found 0"),
        (("--fraction", "1.5"), "`fraction` should be less than or equal to 1; found 1.5"),
        (("--fraction", "nan"), "`fraction` should be"),
        (("--fraction", "0.5"), "`fraction` below 1 needs `site_names`"),
        (
            ("--wire", "float64"),
            "`--wire` should be float16, int8 or float32; found 'float64': did you mean float16?",
        ),
        (("--images", "png"), "`--images` should be uint8 or float32; found 'png'"),
        (("--init", "zeros"), "`--init` should be real or noise; found 'zeros'"),
        (("--local", "all"), "`--local` should be dm, averages, random or none; found 'all'"),
        (
            ("--merging", "mean"),
            "`--merging` should be weighted, uniform, median or trimmed; found 'mean'",
        ),
        (
            ("--augment", "crop_blur"),
            "`augment` should be among color_crop_cutout_flip_scale_rotate; found blur",
        ),
        (
            ("--preset", "worst"),
            "`--preset` should be best, real, paper, fedd3, dosfl, dense or none; found 'worst'",
        ),
        (
            ("--network", "LeNet"),
            "`network.name` should be 'ConvNet', 'AlexNet', 'VGG11', 'ResNet18', 'MLP' or 'Thresholds'; found 'LeNet'",
        ),
        (("--network", "ConvNet:width"), "`network` should be NAME or NAME:key=value"),
        (
            ("--network", "ConvNet:width=-8"),
            "`network.width` should be greater than or equal to 8; found -8",
        ),
        (("--network", "ConvNet:colour=1"), "`network.colour` is not a setting"),
        (("--classes", "cat"), "`classes`"),
        (("--classes", "cat,cat"), "class names should be distinct; found several of cat"),
        (("--image-size", "8"), "`--image-size` should be CHANNELSxSIDE, e.g. 3x32; found '8'"),
        (("--image-size", "3x8x8"), "`--image-size` should be CHANNELSxSIDE"),
        (("--image-size", "3x4"), "`side` should be at least 8, or 1 for rows of a table; found 4"),
        (("--image-size", "9999x8"), "`channels` should be at most 16; found 9999"),
        (
            ("--data", "digits"),
            "either `--data`, or `--classes` with `--image-size`, should be given; found both",
        ),
        (("--budget", "1kB"), "`budget` should be at least"),
        (
            ("--budget", "much"),
            "`budget` should be bytes, such as 500kB, 1MB or 2MiB; found 'much'",
        ),
        (("--budget", "-1MB"), "`budget` should be bytes"),
    ],
)
def test_a_plan_that_cannot_be_is_not_written(option, said, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(*with_option(PLAN, *option), said=(said,))


def test_an_odd_side_is_not_partitioned(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(
        *with_option(PLAN, "--image-size", "1x9"),
        "--pae",
        said=("`pae` should divide the image side 9; found 2",),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colour = 1", "`colour` is not a setting"),
        ("steps = -1", "`steps` should be greater than or equal to 0; found -1"),
        ("local = 5", "`local` should be"),
        (
            'classes = ["a", "b"]\nprobe = 1',
            "plan.toml should not set classes, probe; found them there",
        ),
        ("image = 5", "plan.toml should not set image; found them there"),
        (
            'preset = "worst"',
            "`preset` should be one of best, real, paper, fedd3, dosfl, dense, none; found 'worst'",
        ),
        (
            "preset = 5",
            "`preset` should be one of best, real, paper, fedd3, dosfl, dense, none; found '5'",
        ),
        ("steps", "plan.toml should be a readable TOML file"),
    ],
)
def test_a_plan_whose_configuration_cannot_be_is_not_written(
    text, said, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plan.toml").write_text(text)
    refused(*PLAN, "--config", "plan.toml", said=(said,))


def test_a_plan_that_cannot_be_makes_no_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(*PLAN[:-1], "deep/down/new.json", "--steps", "-1", said=("`steps` should be",))
    assert not list(tmp_path.iterdir())


def test_a_plan_needs_data_or_classes_and_a_size(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for half in (("--classes", "a,b"), ("--image-size", "1x8"), ()):
        refused(
            "plan",
            *half,
            "-o",
            "new.json",
            said=("`--data`, or both `--classes` and `--image-size`, should be",),
        )


def test_a_site_that_the_plan_does_not_name_is_refused(here) -> None:
    refused(
        *with_option(CONTRIBUTE, "--site", "c"),
        said=("`site` should be one of north, south; found 'c'",),
    )


@pytest.mark.parametrize("site", ["", "a b", "../up", "x" * 65, "é", "-a"])
def test_a_site_is_named_so_that_a_file_can_be(site, here) -> None:
    write_plan(tiny_plan(COLOUR), "plan.json")
    refused(
        *CONTRIBUTE[:-4],
        f"--site={site}",
        *CONTRIBUTE[-2:],
        said=("`site` should be 1 to 64 letters, digits",),
    )


@pytest.mark.parametrize("command", [CONTRIBUTE, DISTILL, EVALUATE, SIMULATE], ids=lambda c: c[0])
@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--device", "abacus"), "`device` should be one that this machine has; found 'abacus'"),
        (
            ("--precision", "float8"),
            "`--precision` should be auto, float32 or bfloat16; found 'float8': did you mean float32?",
        ),
    ],
)
def test_a_device_or_precision_that_is_not_here_is_refused(command, option, said, here) -> None:
    refused(*command, *option, said=(said,))


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--epochs", "0"), "`epochs` should be at least 1; found 0"),
        (("--recipe", "cake"), "`--recipe` should be paper, short or strong; found 'cake'"),
        (
            ("--networks", "LeNet"),
            "`name` should be 'ConvNet', 'AlexNet', 'VGG11', 'ResNet18', 'MLP' or 'Thresholds'; found 'LeNet'",
        ),
        (
            ("--networks", "ConvNet,AlexNet:width=9"),
            "`width` should be left at 128 for AlexNet; found 9",
        ),
    ],
)
def test_an_evaluation_that_cannot_be_is_refused(option, said, here) -> None:
    refused(*with_option(EVALUATE, *option), said=(said,))


@pytest.mark.parametrize(
    "option", [("--trials", "0"), ("--seed", "-1"), ("--threads", "-1"), ("--trials", "many")]
)
def test_numbers_that_cannot_be_are_wrong_usage(option, here) -> None:
    before = entries()
    result = run(*with_option(EVALUATE, *option))
    assert result.code == 2
    assert f"Invalid value for '{option[0]}'" in result.err
    assert entries() == before


# --- simulations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--method", "magic"), "`method` should be one of collabdm, collabdm-pae"),
        (("--compare", "random,magic"), "`compare` should be among random, sites, all, collabdm"),
        (("--sites", "0"), "`sites` should be greater than or equal to 1; found 0"),
        (("--beta", "-1"), "`beta` should be greater than 0; found -1"),
        (("--beta", "1e-9"), "`beta` should be in 1e-06 .. 1000000; found 1e-09"),
        (("--class-floor", "-1"), "`class_floor` should be greater than or equal to 0; found -1"),
        (
            ("--class-floor", "50"),
            "should have at least 5 sites x 50 (`class_floor`) = 250 images; found 140",
        ),
        (("--per-class", "0"), "`per_class` should be greater than or equal to 1; found 0"),
        (("--trials", "0"), "`trials` should be greater than or equal to 1; found 0"),
        (("--epochs", "0"), "`epochs` should be greater than or equal to 1; found 0"),
        (("--seed", "-1"), "`seed` should be greater than or equal to 0; found -1"),
        (("--seed", str(2**70)), "`seed` should be less than"),
        (("--recipe", "cake"), "`--recipe` should be paper, short or strong; found 'cake'"),
        (
            ("--preset", "worst"),
            "`--preset` should be best, real, paper, fedd3, dosfl, dense or none; found 'worst'",
        ),
        (
            ("--networks", "LeNet"),
            "`name` should be 'ConvNet', 'AlexNet', 'VGG11', 'ResNet18', 'MLP' or 'Thresholds'; found 'LeNet'",
        ),
        (("--network", "LeNet"), "found 'LeNet'"),
        (("--steps", "-1"), "`steps` should be greater than or equal to 0; found -1"),
        (("--ipc", "0"), "`ipc` should be greater than or equal to 1; found 0"),
        (("--batch", "none"), "`batch` should be a number of at least 1, or all; found 'none'"),
        (("--local-steps", "-1"), "`local.steps` should be greater than or equal to 0; found -1"),
        (
            ("--wire", "float64"),
            "`--wire` should be float16, int8 or float32; found 'float64': did you mean float16?",
        ),
        (("--site-column", "hospital"), "digits should have a column `hospital`"),
        (
            ("--partition", "nothing.json"),
            "`nothing.json` should be a saved partition; [Errno 2] No such file",
        ),
        (("--config", "nothing.toml"), "nothing.toml should be a readable TOML file"),
        (("--data", "./nothing"), "`./nothing` should be a folder, a file or one of digits"),
    ],
)
def test_a_simulation_that_cannot_be_leaves_no_folder(option, said, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(*with_option(SIMULATE, *option), said=(said,))
    assert not Path("sim").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('data = "digits"\ncolour = "red"', "`colour` is not a setting"),
        ("data = digits", "should be a readable TOML file; Invalid value"),
        ("steps", "should be a readable TOML file"),
        ('data = "digits"\nsteps = 5', "`steps` is not a setting"),
        ('data = "digits"\nplan = 5', "`plan` should be a table of settings, [plan]; found 5"),
        ('data = "digits"\n[plan]\ncolour = "red"', "`colour` is not a setting"),
        ('data = "digits"\n[plan.local]\ncolour = "red"', "`local.colour` is not a setting"),
        ('data = "digits"\n[plan]\nlocal = 5', "`local` should be"),
        ('data = "digits"\n[plan]\nipc = "ten"', "`ipc` should be a whole number"),
        ('data = "digits"\n[plan]\nsteps = nan', "`steps` should be"),
        ('data = "digits"\n[plan]\nsteps = 2020-02-02', "`steps` should be"),
        ('data = "digits"\n[plan]\nnetwork = "LeNet"', "found 'LeNet'"),
        ('data = "digits"\n[plan]\nnetwork = 5', "`network`"),
        (
            'data = "digits"\n[plan]\nclasses = ["a", "b"]',
            "`plan` should leave classes to the simulation",
        ),
        ('data = "digits"\n[plan]\nsites = 9', "`plan` should leave sites to the simulation"),
        ('data = "digits"\ntrials = "many"', "`trials` should be a whole number"),
        (
            'data = "digits"\npreset = 5',
            "`preset` should be one of best, real, paper, fedd3, dosfl, dense, none; found '5'",
        ),
        (
            'data = "digits"\nsite_column = "x"\nper_class = 5',
            "`site_column` should be set without `per_class`",
        ),
        (
            'data = "digits"\nbeta = 0\nclass_floor = 2',
            "`class_floor` belongs to the Dirichlet split",
        ),
        ("sites = 3", "`--data` should name the data, here or in the configuration; found none"),
    ],
)
def test_a_configuration_that_cannot_be_leaves_no_folder(text, said, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("round.toml").write_text(text)
    refused("simulate", "--config", "round.toml", "-o", "sim", said=(said,))
    assert not Path("sim").exists()


def test_a_configuration_that_is_no_text_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("round.toml").write_bytes(b"\xff\xfe\x00")
    refused(
        "simulate",
        "--config",
        "round.toml",
        "-o",
        "sim",
        said=("round.toml should be a readable TOML file",),
    )


def test_a_folder_with_something_else_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sim").mkdir()
    for text in ("", "[]", '{"something": "else"}'):
        Path("sim/experiment.json").write_text(text)
        refused(
            *SIMULATE,
            said=("sim should be empty or contain this experiment; found another experiment",),
        )


def test_a_partition_of_another_set_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Partition(("a",), (torch.arange(3),), 3).save(Path("split.json"))
    refused(*SIMULATE, "--partition", "split.json", said=("a set of 3 images; found one of 1442",))
    assert not Path("sim").exists()


@pytest.mark.parametrize("name", ["a b", "../up"])
def test_a_partition_whose_sites_cannot_be_named_so_is_refused(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Partition((name,), (torch.arange(1442),), 1442).save(Path("split.json"))
    refused(*SIMULATE, "--partition", "split.json", said=("`site` should be 1 to 64 letters",))
    assert not Path("sim").exists()


def test_a_class_at_no_site_of_a_simulation_is_named_before_the_work(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        picture_folder(Path("held") / split, cat=3, dog=3)
    Partition(("a",), (torch.arange(3),), 6).save(Path("split.json"))
    command = (
        "simulate",
        "--data",
        "held",
        "--partition",
        "split.json",
        "-o",
        "sim",
        "--network",
        NETWORK,
    )
    refused(*command, said=("every class should be at some site; no site has dog",))
    assert not Path("sim").exists()


def test_test_images_that_do_not_go_with_the_training_images_are_refused(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture_folder(Path("sizes/train"), 8, cat=3, dog=3)
    picture_folder(Path("sizes/test"), 9, cat=3, dog=3)
    picture_folder(Path("classes/train"), 8, cat=3, dog=3)
    picture_folder(Path("classes/test"), 8, cat=3, owl=3)
    command = ("simulate", "-o", "sim", "--network", NETWORK, "--data")
    refused(*command, "sizes", said=("one shape; found (3, 8, 8) and (3, 9, 9)",))
    refused(*command, "classes", said=("lacks ['owl']",))
    assert not Path("sim").exists()
