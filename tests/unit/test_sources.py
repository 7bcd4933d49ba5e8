import os
import time
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from pictures import image_folder, parquet, pixels, planes
from PIL import Image

from collabdm.data.sources import column_values, fit_classes, limit, load
from collabdm.errors import DataError
from collabdm.images import ImageSet
from collabdm.seeds import Purpose, Stream

needs_data = pytest.mark.skipif(
    not os.environ.get("COLLABDM_DATA"), reason="COLLABDM_DATA is not set"
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own, and a hub that cannot be reached."""

    def no_hub(*_: object) -> None:
        raise ConnectionError("no network here")

    monkeypatch.setenv("COLLABDM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", no_hub)
    return tmp_path / "cache"


# --- by name -------------------------------------------------------------------------------------


def test_the_digits_are_scaled_to_bytes_and_the_last_fifth_of_each_class_is_the_test_split() -> (
    None
):
    train, test = load("digits"), load("digits", "test")
    assert train.shape == (1, 8, 8)
    assert train.classes == tuple("0123456789")
    assert test.counts().tolist() == [
        (a + b) // 5 for a, b in zip(train.counts(), test.counts(), strict=True)
    ]
    assert len(train) + len(test) == 1797
    assert train.images[0, 0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0
    assert int(train.images.max()) == 255


def test_the_digits_have_no_other_split() -> None:
    with pytest.raises(DataError, match="`validation`; found test, train"):
        load("digits", "validation")


def test_a_known_name_is_the_folder_of_that_name(tmp_path, monkeypatch) -> None:
    (tmp_path / "root" / "cifar10").mkdir(parents=True)
    parquet(tmp_path / "root" / "cifar10" / "train-00000-of-00001.parquet", [0, 9])
    monkeypatch.setenv("COLLABDM_DATA", str(tmp_path / "root"))
    data = load("cifar10")
    assert data.classes[0] == "airplane"
    assert data.classes[9] == "truck"
    assert data.labels.tolist() == [0, 9]


def test_an_unreachable_hub_is_reported_with_the_remedy(monkeypatch) -> None:
    monkeypatch.delenv("COLLABDM_DATA", raising=False)
    for name in ("cifar10", "hub:someone/something"):
        with pytest.raises(
            DataError,
            match=rf"`{name}` should be a .*no network here.*: set COLLABDM_DATA, or pass a path",
        ):
            load(name)


def test_a_path_that_does_not_exist_is_never_asked_of_the_hub(monkeypatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: asked.append(names))
    for location in ("hospital-north/ct_scans", Path("hospital-north/ct_scans")):
        with pytest.raises(DataError, match="does not exist.*use hub:hospital-north/ct_scans"):
            load(location)
    assert asked == []


def test_a_hub_id_is_loaded_with_its_configuration(tmp_path, monkeypatch) -> None:
    asked = []
    table = parquet(tmp_path / "rows.parquet", [1, 0, 1], ["a", "b"], site=["x", "y", "x"])

    def hub(*arguments: object) -> datasets.DatasetDict:
        asked.append(arguments)
        rows = datasets.Dataset.from_parquet(
            str(table), cache_dir=str(tmp_path / "hub"), keep_in_memory=True
        )
        return datasets.DatasetDict(train=rows.cast_column("image", datasets.Image()))

    monkeypatch.setattr(datasets, "load_dataset", hub)
    monkeypatch.delenv("COLLABDM_DATA", raising=False)
    data = load("hub:someone/something")
    assert data.labels.tolist() == [1, 0, 1]
    assert torch.equal(data.images[2], planes(pixels(2)))
    assert column_values("hub:someone/something", "site") == ("x", "y", "x")
    with pytest.raises(DataError, match="`test`; found train"):
        load("svhn", "test")
    assert asked[0] == ("someone/something", None)
    assert asked[-1] == ("ufldl-stanford/svhn", "cropped_digits")


# --- Python objects ------------------------------------------------------------------------------


def test_a_datasets_dataset_and_dict_are_read() -> None:
    features = datasets.Features(
        img=datasets.Image(), fine_label=datasets.ClassLabel(names=["a", "b"])
    )
    images = [Image.fromarray(pixels(i)) for i in range(3)]
    rows = datasets.Dataset.from_dict({"img": images, "fine_label": [1, 0, 1]}, features=features)
    data = load(rows)
    assert data.classes == ("a", "b")
    assert torch.equal(data.images[2], planes(pixels(2)))
    splits = datasets.DatasetDict(train=rows, test=rows.select([2]))
    assert torch.equal(load(splits, "test").images[0], data.images[2])
    with pytest.raises(DataError, match="`val`; found test, train"):
        load(splits, "val")


def test_a_torch_dataset_may_give_pictures_arrays_or_tensors() -> None:
    array = pixels(0)
    items = [
        (Image.fromarray(array), 0),
        (array, 1),
        (planes(array), torch.tensor(0)),
        (planes(array).float() / 255, np.int64(1)),
    ]
    data = load(items)
    assert data.labels.tolist() == [0, 1, 0, 1]
    assert all(torch.equal(image, planes(array)) for image in data.images)
    tensors = torch.utils.data.TensorDataset(torch.zeros(2, 1, 4, 4), torch.tensor([3, 4]))
    assert load(tensors).classes == ("3", "4")


def test_an_image_set_is_returned_and_resized_when_asked() -> None:
    data = ImageSet(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), ("a", "b"))
    assert load(data) is data
    assert load(data, side=4, channels=1).images.shape == (2, 1, 4, 4)


@pytest.mark.parametrize("source", [3, None, iter([]), [1, 2], [(1, 2)]])
def test_other_objects_are_refused(source) -> None:
    with pytest.raises(DataError, match="should be"):
        load(source)


@pytest.mark.parametrize("options", [{"side": 0}, {"channels": 2}])
def test_impossible_conversions_are_refused(options) -> None:
    with pytest.raises(DataError, match="`side` should be"):
        load("digits", **options)


# --- classes and subsets -------------------------------------------------------------------------


def test_a_site_that_lacks_classes_is_renumbered_to_the_plans(tmp_path) -> None:
    data = fit_classes(
        load(image_folder(tmp_path / "set", dog=2, cat=1)), ("ant", "cat", "cow", "dog")
    )
    assert data.labels.tolist() == [1, 3, 3]
    assert data.counts().tolist() == [0, 1, 0, 2]


def test_a_class_that_the_plan_lacks_is_refused_with_both_lists(tmp_path) -> None:
    data = load(image_folder(tmp_path / "set", dog=1, cat=1))
    with pytest.raises(DataError, match=r"\['cat', 'cow'\].*\['cat', 'dog'\].*lacks \['dog'\]"):
        fit_classes(data, ("cat", "cow"))


def test_a_limit_keeps_that_many_of_each_class_at_random_and_repeatably() -> None:
    labels = torch.tensor([0] * 50 + [1] * 3)
    data = ImageSet(torch.arange(53, dtype=torch.uint8).view(-1, 1, 1, 1), labels, ("a", "b", "c"))
    kept = limit(data, 10, Stream.of(1, Purpose.DATA))
    positions = kept.images.flatten().tolist()
    assert kept.counts().tolist() == [10, 3, 0]
    assert positions == sorted(set(positions))
    assert positions == limit(data, 10, Stream.of(1, Purpose.DATA)).images.flatten().tolist()
    assert positions != limit(data, 10, Stream.of(2, Purpose.DATA)).images.flatten().tolist()
    assert limit(data, None, Stream.of(1, Purpose.DATA)) is data
    with pytest.raises(DataError, match="`per_class`"):
        limit(data, 0, Stream.of(1, Purpose.DATA))


# --- real data -----------------------------------------------------------------------------------


@needs_data
@pytest.mark.data
def test_cifar10_has_the_published_counts_and_mean_and_loads_at_once_the_second_time() -> None:
    data = load("cifar10", "test")
    assert data.counts().tolist() == [1000] * 10
    assert data.classes[3] == "cat"
    mean = data.images.double().mean(dim=(0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.4942, 0.4851, 0.4504], abs=2e-3)
    start = time.perf_counter()
    again = load("cifar10", "test")
    assert time.perf_counter() - start < 2
    assert torch.equal(again.images, data.images)


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(("name", "mean"), [("mnist", 0.1325), ("fashion_mnist", 0.2868)])
def test_the_grey_sets_have_the_published_sizes_and_means(name, mean) -> None:
    data = load(name, "test")
    assert data.images.shape == (10000, 1, 28, 28)
    assert data.classes[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[name]
    assert float(data.images.double().mean()) / 255 == pytest.approx(mean, abs=5e-4)


@needs_data
@pytest.mark.data
def test_svhn_digits_are_in_colour() -> None:
    assert load("svhn", "test").shape == (3, 32, 32)
