"""Objects at the Python prompt and in notebooks: their text and their pictures."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageShow
from tiny import COLOUR, tiny_data, tiny_plan
from torch.utils.data import DataLoader, Dataset

from collabdm import DistilledSet, ImageSet, TrainedModel
from collabdm.errors import DataError
from collabdm.images import as_float
from collabdm.matching.networks import build
from collabdm.methods.collabdm import contribute, distill
from collabdm.scoring.evaluation import Score
from collabdm.scoring.trained_model import state_tensors

PLAN = tiny_plan(COLOUR, ipc=2, pae=2)
DATA = tiny_data((4, 3, 0), plan=PLAN)


def made() -> DistilledSet:
    return distill(PLAN, [contribute(PLAN, DATA)], allow_missing=True)


def model() -> TrainedModel:
    network = build(PLAN.network, PLAN.image.shape, len(PLAN.classes))
    return TrainedModel(PLAN.network, PLAN.image, PLAN.classes, state_tensors(network))


@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (DATA, r"ImageSet\(7 images of 3 x 8 x 8, 3 classes: .+, .+, .+\)"),
        (
            PLAN,
            r"Plan\([0-9a-f]{8}…: collabdm, 3 sites, T = \d+, ipc 2, 3 x 8 x 8, 3 classes: .+\)",
        ),
        (
            contribute(PLAN, DATA, "site-2"),
            r"Contribution\('site-2' to plan [0-9a-f]{8}…: \d+ steps x 2 classes x \d+ numbers, .+\)",
        ),
        (made(), r"DistilledSet\(4 images of 3 x 8 x 8, each of 4 small ones, 3 classes: .+; .+\)"),
        (model(), r"TrainedModel\(ConvNet, [\d,]+ weights, for 3 x 8 x 8, 3 classes: .+\)"),
        (
            Score("collabdm", "ConvNet", (0.5, 0.7), 20),
            r"Score\(collabdm, ConvNet: 60.0 \+- 14.1 %, n = 2, 20 images\)",
        ),
    ],
)
def test_every_object_describes_itself_in_a_line(thing, expected) -> None:
    text = repr(thing)
    assert re.fullmatch(expected, text), text
    assert str(thing) == text


def shown(html: str) -> np.ndarray:
    data = base64.b64decode(re.search(r"base64,([^\"]+)", html)[1])
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_notebook_shows_each_class_in_a_row_with_its_pixels() -> None:
    pixels = shown(DATA._repr_html_())
    assert pixels.shape == (2 * 66 + 2, 4 * 66 + 2, 3)  # two classes; 8 x 8 pixels, 8 times larger
    first = DATA.images[DATA.of_class(1)][0].permute(1, 2, 0).numpy()
    assert np.array_equal(pixels[68:132:8, 2:66:8], first)
    assert (pixels[68:, 2 + 3 * 66 :] == 255).all()  # the second class has three images

    distilled = made()
    assert distilled._repr_html_().startswith(f"<figure><figcaption>{distilled!r}")
    assert shown(distilled._repr_html_()).shape == (2 * 66 + 2, 2 * 66 + 2, 3)


def test_names_of_classes_cannot_contain_markup() -> None:
    data = ImageSet(DATA.images, DATA.labels, ("<b>", "&", "c"))
    assert "<b>" not in data._repr_html_()


def test_a_set_without_images_is_described_and_not_drawn() -> None:
    empty = DATA.subset(torch.zeros(0, dtype=torch.int64))
    assert empty._repr_html_() == repr(empty)
    with pytest.raises(DataError, match="should have images"):
        empty.picture()


def test_show_opens_the_picture_in_a_viewer() -> None:
    class Recording(ImageShow.Viewer):
        def show(self, image: Image.Image, **options: object) -> int:
            opened.append(image.size)
            return 1

    opened: list[tuple[int, int]] = []
    ImageShow.register(Recording(), order=0)  # before all others
    try:
        DATA.show(2)
        made().show(1)
    finally:
        ImageShow._viewers.pop(0)
    assert opened == [(134, 134), (68, 134)]


def test_a_set_is_a_dataset_for_a_data_loader() -> None:
    def accepts(data: Dataset) -> DataLoader:
        return DataLoader(data, batch_size=4)

    batches = list(accepts(DATA))
    assert torch.equal(torch.cat([pixels for pixels, _ in batches]), as_float(DATA.images))
    assert torch.equal(torch.cat([labels for _, labels in batches]), DATA.labels)
