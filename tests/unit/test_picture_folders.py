"""Folders of pictures as people have them: splits, foreign files, links, names, wrong levels."""

import os
import unicodedata
from pathlib import Path

import pytest
from command import NETWORK, done, picture_folder, run
from pictures import draw, image_folder, pixels

from collabdm.data.selection import Selection, class_names
from collabdm.data.sources import fit_classes, load, load_tallied
from collabdm.data.tally import Tally
from collabdm.errors import DataError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLABDM_CACHE", str(tmp_path / "cache"))


def counts(tally: Tally) -> dict[str, int]:
    return {remark.reason: remark.count for remark in tally.remarks}


# --- splits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [("Training", "Testing"), ("Train", "TEST"), ("train", "test"), ("TRAINING", "Test")],
)
def test_splits_are_found_in_any_spelling(tmp_path, train, test) -> None:
    image_folder(tmp_path / "set" / train, cat=2, dog=1)
    image_folder(tmp_path / "set" / test, cat=1)
    assert load(tmp_path / "set").counts().tolist() == [2, 1]
    assert load(tmp_path / "set", "test").counts().tolist() == [1]


@pytest.mark.parametrize("name", ["val", "Valid", "validation", "dev"])
def test_a_test_split_of_another_name_is_chosen_by_the_user(tmp_path, name) -> None:
    image_folder(tmp_path / "set" / "train", cat=2)
    image_folder(tmp_path / "set" / name, cat=1)
    with pytest.raises(DataError, match=f"split `test`; found .*add `--test-split {name}`"):
        load(tmp_path / "set", "test")
    chosen = Selection(test_split=name)
    assert len(load(tmp_path / "set", "test", selection=chosen)) == 1
    assert len(load(tmp_path / "set", "train", selection=chosen)) == 2


def test_two_spellings_of_a_split_are_refused(tmp_path) -> None:
    for name in ("train", "Training"):
        image_folder(tmp_path / "set" / name, cat=1)
    with pytest.raises(DataError, match="one split `train`; found Training, train"):
        load(tmp_path / "set")


def test_splits_next_to_other_folders_are_refused_with_the_names(tmp_path) -> None:
    for name in ("train", "test", "copy_of_it"):
        image_folder(tmp_path / "set" / name, cat=1)
    with pytest.raises(DataError, match="splits test, train and also copy_of_it"):
        load(tmp_path / "set")


def test_a_class_may_be_called_train(tmp_path) -> None:
    assert load(image_folder(tmp_path / "set", bus=1, train=2)).classes == ("bus", "train")


def test_splits_without_class_folders_are_refused(tmp_path) -> None:
    image_folder(tmp_path / "set", train=2, test=1)
    with pytest.raises(DataError, match="found test, train, in which there are no class folders"):
        load(tmp_path / "set")


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        (("archive/train", "archive/test"), "archive with test, train"),
        (("north", "south"), "north with cat, dog; south with cat, dog"),
        (("a/Training", "b/Testing"), "a with Training; b with Testing"),
    ],
)
def test_a_folder_of_the_wrong_level_is_refused_with_the_layout(tmp_path, inner, said) -> None:
    for name in inner:
        image_folder(tmp_path / "set" / name, cat=1, dog=1)
    with pytest.raises(DataError, match=f"one subfolder of pictures for each class.*{said}"):
        load(tmp_path / "set")


@pytest.mark.parametrize(
    ("cat", "dog"), [("cat/images", "dog/images"), ("cat/patient1", "dog/patient2")]
)
def test_pictures_may_be_in_folders_of_their_class(tmp_path, cat, dog) -> None:
    image_folder(tmp_path / "set", **{cat: 2, dog: 1})
    data = load(tmp_path / "set")
    assert (data.classes, data.counts().tolist()) == (("cat", "dog"), [2, 1])


# --- what is skipped -----------------------------------------------------------------------------


def test_everything_that_is_skipped_is_counted(tmp_path) -> None:
    root = image_folder(tmp_path / "set", cat=2, dog=3)
    foreign = ("cat/._0.png", "cat/Thumbs.db", "dog/.DS_Store", "__MACOSX/cat/._1.png")
    other = ("cat/notes.txt", "owl/1.psd", "labels.csv")
    for name in (*foreign, *other):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\5\26\7")
    (root / "dog" / "gone.png").symlink_to("/nowhere/gone.png")

    data, tally = load_tallied(root)
    assert data.classes == tally.classes == ("cat", "dog")
    assert tally.counts == (2, 3)
    assert counts(tally) == {
        "unknown_ending": 2,
        "foreign": 4,
        "outside": 1,
        "dead_link": 1,
        "empty_class": 1,
    }
    assert tally.json()["remarks"]["dead_link"]["examples"] == [str(root / "dog" / "gone.png")]
    assert "5 images of 2 classes (cat 2, dog 3)" in tally.lines()[0]
    assert any(line.startswith("  1 skipped, links to nothing") for line in tally.lines())
    assert load_tallied(root)[1] == tally  # from the cache


def test_a_clean_folder_has_a_tally_of_one_line(tmp_path) -> None:
    _, tally = load_tallied(image_folder(tmp_path / "set", cat=2, dog=1))
    (line,) = tally.lines()
    assert line.endswith("3 images of 2 classes (cat 2, dog 1)")


@pytest.mark.parametrize("ending", ["jfif", "jpe", "JPG", "JPEG", "Png", "webp"])
def test_usual_endings_are_pictures(tmp_path, ending) -> None:
    draw(tmp_path / "set" / "cat" / f"0.{ending}", pixels(0))
    assert len(load(tmp_path / "set")) == 1


def test_links_to_folders_are_followed_and_loops_end(tmp_path) -> None:
    image_folder(tmp_path / "store", scanner=3)
    root = image_folder(tmp_path / "set", cat=1, dog=1)
    for name in ("cat", "dog"):
        (root / name / "scanner").symlink_to(tmp_path / "store" / "scanner")
        (root / name / "loop").symlink_to(root / name)
    data, tally = load_tallied(root)
    assert data.counts().tolist() == [4, 4]
    assert counts(tally) == {"repeated_link": 2}


def test_a_folder_without_pictures_is_refused_with_what_was_found(tmp_path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "0.psd").write_bytes(b"x")
    with pytest.raises(DataError, match="1 subfolder without a picture.*picture ending.*0.psd"):
        load(tmp_path / "set")


# --- unreadable pictures -------------------------------------------------------------------------


def damaged_folder(root: Path, pictures: int = 4) -> Path:
    image_folder(root, cat=pictures, dog=pictures)
    whole = (root / "cat" / "1.png").read_bytes()
    (root / "cat" / "1.png").write_bytes(whole[:-40])
    (root / "dog" / "0.png").write_bytes(b"<html><body>404 Not Found</body></html>")
    (root / "dog" / "2.png").write_bytes(b"")
    return root


def test_all_unreadable_pictures_are_listed_at_once_with_plain_reasons(tmp_path) -> None:
    with pytest.raises(DataError) as error:
        load(damaged_folder(tmp_path / "set"))
    message = str(error.value)
    assert "3 cannot be read" in message
    for line in ("1.png`: it is cut off", "0.png`: it is a web page", "2.png`: it is empty"):
        assert line in message
    assert "--skip-unreadable" in message
    assert "BytesIO" not in message
    assert "cannot identify" not in message


def test_of_many_unreadable_pictures_twenty_are_named(tmp_path) -> None:
    root = image_folder(tmp_path / "set", cat=30)
    for i in range(25):
        (root / "cat" / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"25 cannot be read[\s\S]*and 5 more") as error:
        load(root)
    assert str(error.value).count("it is empty") == 20


def test_unreadable_pictures_are_skipped_and_counted_when_asked(tmp_path) -> None:
    root = damaged_folder(tmp_path / "set")
    for _ in range(2):  # the second time from the cache
        data, tally = load_tallied(root, selection=Selection(skip_unreadable=True))
        assert data.counts().tolist() == [3, 2]
        assert counts(tally) == {"unreadable": 3}
    with pytest.raises(DataError, match="3 cannot be read"):
        load(root)


# --- names ---------------------------------------------------------------------------------------


def test_names_are_compared_in_the_composed_form_and_without_spaces(tmp_path) -> None:
    decomposed = unicodedata.normalize("NFD", "Ödem")
    data = load(image_folder(tmp_path / "set", **{decomposed: 2, "normal ": 1}))
    assert data.classes == ("Ödem", "normal")
    assert fit_classes(data, ("Ödem", "normal")).counts().tolist() == [2, 1]


def test_the_nearest_class_is_named_for_an_unknown_one(tmp_path) -> None:
    data = load(image_folder(tmp_path / "set", pneumona=1))
    with pytest.raises(DataError, match="pneumona: did you mean pneumonia?"):
        fit_classes(data, ("normal", "pneumonia"))


def test_class_names_with_commas_are_quoted_or_come_from_a_file(tmp_path) -> None:
    names = ("Pepper,_bell___healthy", "Corn_(maize)___Common_rust_")
    assert class_names('"Pepper,_bell___healthy", Corn_(maize)___Common_rust_') == names
    (tmp_path / "names.txt").write_text("\ufeff" + "\n".join(names) + "\n\n", encoding="utf-8")
    assert class_names(str(tmp_path / "names.txt")) == names
    with pytest.raises(DataError, match="those with commas quoted"):
        class_names('"a"b,c')
    with pytest.raises(DataError, match=r"found several of Pepper: if names contain commas, quote"):
        class_names("Pepper,_bell___healthy,Pepper,_bell___Bacterial_spot")
    with pytest.raises(DataError, match="found an empty one in 'cat,,owl'"):
        class_names("cat,,owl")


def test_a_tally_counts_in_english() -> None:
    assert Tally("here", ("cat",), (1,)).lines() == ["here: 1 image of 1 class (cat 1)"]


# --- the commands --------------------------------------------------------------------------------

PLAN = ("--ipc", "1", "--steps", "2", "--network", NETWORK, "--no-pae")


def test_the_commands_print_the_tally_and_the_plan_its_classes(tmp_path) -> None:
    root = picture_folder(tmp_path / "set", cat=8, dog=7)
    (root / "cat" / "notes.txt").write_text("x")
    plan = tmp_path / "plan.json"
    made = done("plan", "--data", root, *PLAN, "-o", plan)
    assert "2 classes: cat, dog" in made.out
    assert "15 images of 2 classes (cat 8, dog 7)" in made.err
    assert "1 skipped, not a known picture ending" in made.err

    sent = ("--site", "here", "--smallest-class", "1", "--dry-run")
    read = done("contribute", plan, "--data", root, *sent, "-o", tmp_path / "s.safetensors")
    assert "1 skipped, not a known picture ending" in read.err
    checked = run("check", plan, "--data", root, "--site", "here", "--smallest-class", "1")
    assert "15 images of 2 classes (cat 8, dog 7)" in checked.out + checked.err


def test_a_reference_set_that_is_not_square_is_resized_by_the_image_size(tmp_path) -> None:
    root = tmp_path / "set"
    for name in ("cat", "dog"):
        draw(root / name / "0.png", pixels(0, 3, 16)[:, :12])
    plan = tmp_path / "plan.json"
    refused = run("plan", "--data", root, *PLAN, "-o", plan)
    assert refused.code
    assert "should be square; found 12 x 16" in refused.err
    made = done("plan", "--data", root, "--image-size", "1x8", "--fit", "crop", *PLAN, "-o", plan)
    assert "pictures: ground #ffffff, range 8 bits, crop" in made.out
    assert "2 not square: cropped to the central square" in made.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_one_error(tmp_path) -> None:
    root = image_folder(tmp_path / "set", cat=1, dog=1)
    (root / "dog").chmod(0)
    with pytest.raises(DataError, match="should be a readable folder"):
        load(root)


def test_the_folder_of_one_class_is_refused_with_the_advice_to_name_the_one_above(tmp_path) -> None:
    image_folder(tmp_path / "set", cat=2, dog=1)
    with pytest.raises(DataError, match="found 0 subfolders.*name the folder that contains it$"):
        load(tmp_path / "set" / "cat")
