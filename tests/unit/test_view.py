"""The nearest private images, and the pictures that a site's operator looks at before sending."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import OPEN as OPEN_FILE
from command import cells, done, run
from PIL import Image
from tiny import COLOUR, fixed_distilled, fixed_model, fixed_plan, fixed_steps, tiny_data, tiny_plan

from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.outcome_files import write_distilled, write_steps
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import write_plan
from collabdm.export.document_picture import ClassRow, Tile, draw_document
from collabdm.images import ImageSet
from collabdm.matching.augment import mosaic
from collabdm.methods.collabdm import contribute
from collabdm.methods.registry import contribute as contribute_by_method
from collabdm.privacy import nearest
from collabdm.privacy.nearest import nearest_images, reduced, small_images, spacing
from collabdm.rounds.comparison import compare, sent_images
from collabdm.rounds.view import MOST_SHOWN, read_images
from collabdm.scoring.distilled_model_file import write_distilled_model

CLASSES = ("cat", "dog")


def grey(levels: list[int], labels: list[int]) -> ImageSet:
    pixels = torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    return ImageSet(pixels.contiguous(), torch.tensor(labels), CLASSES)


# --- distances -----------------------------------------------------------------------------------


def test_the_nearest_image_is_of_the_same_class_and_in_grey_levels() -> None:
    private = grey([10, 100, 50, 200], [0, 0, 1, 1])
    found = nearest_images(grey([40, 45, 255], [0, 1, 1]), private)
    assert found.positions.tolist() == [0, 2, 3]
    assert found.distances.tolist() == pytest.approx([30, 5, 55], abs=1e-3)


def test_an_image_without_a_private_one_of_its_class_has_no_distance() -> None:
    found = nearest_images(grey([40], [1]), grey([10], [0]))
    assert found.positions.tolist() == [-1]
    assert found.distances.tolist() == [torch.inf]
    assert compare(grey([40], [1]), grey([10], [0]), 1).classes == ()


def test_distances_in_chunks_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "CHUNK", 3)
    monkeypatch.setattr(nearest, "QUERIES", 2)
    private, images = tiny_data((11, 8, 5), 1), tiny_data((4, 3, 5), 2)
    found = nearest_images(images, private)
    for i in range(len(images)):
        members = private.of_class(int(images.labels[i]))
        every = private.images[members].float() - images.images[i].float()
        distances = every.square().mean((1, 2, 3)).sqrt()
        assert float(found.distances[i]) == pytest.approx(float(distances.min()), abs=1e-3)
        assert int(found.positions[i]) == int(members[distances.argmin()])


def test_spacing_leaves_out_the_image_itself_but_not_a_copy() -> None:
    apart = spacing(grey([0, 10, 30, 90], [0, 0, 0, 1]), 0)
    assert apart is not None
    assert (apart.median, apart.minimum) == pytest.approx((10, 10), abs=1e-3)
    copies = spacing(grey([7, 7, 90], [0, 0, 0]), 0)
    assert copies is not None
    assert copies.minimum == 0
    assert spacing(grey([7, 90], [0, 1]), 0) is None


def test_small_images_of_pae_are_found_among_reduced_private_ones() -> None:
    private = tiny_data((9, 8, 7))
    chosen = private.of_class(1)[:4]
    stored = ImageSet(
        mosaic(private.images[chosen].float() / 255, 2), torch.tensor([1]), private.classes
    )
    small = small_images(stored, 2)
    assert small.images.shape == (4, 1, 4, 4)
    found = nearest_images(small, private, 2)
    assert found.positions.tolist() == chosen.tolist()
    assert found.distances.tolist() == pytest.approx([0] * 4, abs=1e-3)
    assert reduced(private.images, 2).shape == (24, 1, 4, 4)


def test_a_comparison_names_the_closest_class() -> None:
    private = grey([10, 100, 50, 200], [0, 0, 1, 1])
    comparison = compare(grey([40, 45], [0, 1]), private, 1)
    assert [(one.name, one.images) for one in comparison.classes] == [("cat", 1), ("dog", 1)]
    assert comparison.closest.name == "dog"
    assert comparison.closest.spacing is not None
    assert comparison.closest.spacing.minimum == pytest.approx(150, abs=1e-3)


# --- pictures ------------------------------------------------------------------------------------


def test_a_picture_has_a_line_of_twelve_images_and_their_private_ones() -> None:
    image = torch.full((1, 8, 8), 200, dtype=torch.uint8)
    private = torch.full((1, 8, 8), 100, dtype=torch.uint8)
    alone = draw_document("x", [ClassRow("cat", (), (Tile(image),) * 12)])
    longer = draw_document("x", [ClassRow("cat", (), (Tile(image),) * 13)])
    pairs = draw_document("x", [ClassRow("cat", (), (Tile(image, private, "1.0"),) * 12)])
    assert alone.width == longer.width == pairs.width
    assert longer.height == alone.height + 64 + 6
    assert pairs.height > alone.height + 64
    colours = {colour for _, colour in pairs.getcolors(pairs.width * pairs.height)}
    assert {(200, 200, 200), (100, 100, 100)} <= colours


def test_an_image_that_is_too_near_has_a_red_number() -> None:
    image = torch.zeros((1, 8, 8), dtype=torch.uint8)
    for near in (True, False):
        tile = Tile(image, image, "1.0", is_near=near)
        picture = np.array(draw_document("x", [ClassRow("cat", (), (tile,))])).astype(int)
        assert bool((picture[..., 0] - picture[..., 1] > 100).any()) is near


# --- documents -----------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepared(plan: Plan) -> ImageSet:
    """Write a plan, a contribution and the data behind it."""
    data = tiny_data((9, 8, 7), plan=plan)
    write_plan(plan, "plan.json")
    write_contribution(contribute_by_method(plan, data, "north"), "sent.st")
    images, labels = data.images.numpy(), data.labels.numpy()
    np.savez("mine.npz", images=images, labels=labels, classes=data.classes)
    return data


VIEW = ("view", "sent.st", "-o", "sent.png")
COMPARED = (*VIEW, "--plan", "plan.json", "--data", "mine.npz")


def test_real_images_are_at_distance_0_from_themselves(here) -> None:
    prepared(tiny_plan(COLOUR, local={"method": "random", "images": 2}))
    rows = {row[0]: row[1:] for row in cells(done(*COMPARED, "--json", "view.json").out)}
    assert set(rows) == {"cat", "dog", "owl"}
    for _, shortest, median, apart, least in rows.values():
        assert (shortest, median) == ("0.0", "0.0")
        assert float(apart) >= float(least) > 0
    written = json.loads(Path("view.json").read_text())
    assert written["file"] == "sent.st"
    assert written["classes"]["cat"]["distances"] == [0.0, 0.0]
    with Image.open("sent.png") as picture:
        assert picture.format == "PNG"


def test_a_contribution_is_drawn_without_its_plan_but_not_compared(here) -> None:
    prepared(tiny_plan())
    assert "cat" in done(*VIEW).out
    result = run(*VIEW, "--data", "mine.npz")
    assert result.code == 2
    assert "`--plan` should name the plan of sent.st" in result.err


def test_a_contribution_to_another_plan_is_refused(here) -> None:
    prepared(tiny_plan())
    write_plan(tiny_plan(seed=8), "plan.json")
    assert "sent.st" in run(*COMPARED).err


def test_a_contribution_without_images_has_nothing_to_draw(here) -> None:
    prepared(tiny_plan(local={"method": "none"}))
    result = run(*COMPARED)
    assert result.code == 2
    assert "sent.st should contain images; found none" in result.err
    assert not Path("sent.png").exists()


@pytest.mark.parametrize("name", ["plan.json", "mine.npz", "model.st", "nothing"])
def test_a_file_without_images_is_named(name, here) -> None:
    prepared(tiny_plan())
    write_distilled_model(fixed_model(fixed_plan()), Path("model.st"))
    result = run("view", name, "-o", "sent.png")
    assert result.code == 2
    assert name in result.err
    assert "should be" in result.err


def test_sets_and_steps_are_drawn_and_compared_without_a_plan(here) -> None:
    plan = fixed_plan(local={"images": 0, "method": "none"})
    data = tiny_data((9, 8, 7), plan=plan)
    write_distilled(fixed_distilled(plan), "set.st")
    write_steps(fixed_steps(plan), "steps.st")
    np.savez(
        "mine.npz", images=data.images.numpy(), labels=data.labels.numpy(), classes=data.classes
    )
    for name in ("set.st", "steps.st"):
        done("view", name, "-o", "sent.png")
        assert cells(done("view", name, "-o", "sent.png", "--data", "mine.npz").out)


def test_the_images_of_a_method_with_tensors_of_its_own_are_those_that_are_sent() -> None:
    labels = torch.tensor([[[0.0, 2.0], [3.0, 1.0]]])
    plan = tiny_plan(classes=("cat", "dog"))
    sent = contribute(plan, tiny_data((4, 4), plan=plan), "north")
    pixels = torch.zeros(1, 2, 1, 8, 8, dtype=torch.uint8)
    own = type(sent)(**{**vars(sent), "extra_tensors": {"images": pixels, "labels": labels}})
    assert sent_images(own).labels.tolist() == [1, 0]
    assert sent_images(own).images.shape == (2, 1, 8, 8)
    assert sent_images(sent) is sent.images


def test_a_picture_shows_the_nearest_images_of_a_large_set(here) -> None:
    plan = fixed_plan(ipc=MOST_SHOWN + 4, local={"method": "none"})
    write_distilled(fixed_distilled(plan), "set.st")
    assert len(read_images(Path("set.st")).images) == 3 * (MOST_SHOWN + 4)
    assert (
        f"{MOST_SHOWN + 4} images, {MOST_SHOWN} shown" in done("view", "set.st", "-o", "a.png").out
    )


def test_contribute_ends_in_the_distance_of_the_images_that_it_sends(here) -> None:
    prepared(tiny_plan(local={"method": "random", "images": 1}))
    out = done(
        *("contribute", "plan.json", *OPEN_FILE, "--data", "mine.npz", "--site", "north"),
        *("-o", "again.st", "-q"),
    ).out
    rows = {row[0]: row[1] for row in cells(out)}
    assert rows["nearest private image"].startswith("0.0 grey levels away, in class ")
