import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import draw, image_folder, pixels, planes
from PIL import Image

from collabdm.data import sources
from collabdm.data.cache import cache_folder
from collabdm.data.sources import load
from collabdm.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own."""
    monkeypatch.setenv("COLLABDM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- images --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3)],
)
def test_grey_modes_stay_grey_and_all_others_become_rgb(tmp_path, mode, channels) -> None:
    suffix = "tiff" if mode == "CMYK" else "png"
    (tmp_path / "set" / "a").mkdir(parents=True)
    Image.fromarray(pixels(0)).convert(mode).save(tmp_path / "set" / "a" / f"0.{suffix}")
    assert load(tmp_path / "set").shape == (channels, 4, 4)


def test_images_of_16_bits_are_refused_rather_than_clipped(tmp_path) -> None:
    draw(tmp_path / "set" / "a" / "0.png", pixels(0, 1).astype(np.uint16) * 256)
    with pytest.raises(DataError, match=r"0\.png` should have 8 bits"):
        load(tmp_path / "set")


def test_several_sizes_are_refused_with_counts_and_resized_when_asked(tmp_path) -> None:
    image_folder(tmp_path / "set", a=2)
    draw(tmp_path / "set" / "a" / "9.png", pixels(0, 1, side=6))
    with pytest.raises(
        DataError, match=r"4 x 4 with 3 channel\(s\): 2 images; 6 x 6 with 1 channel\(s\): 1 images"
    ):
        load(tmp_path / "set")
    data = load(tmp_path / "set", side=5, channels=1)
    assert data.images.shape == (3, 1, 5, 5)
    assert load(tmp_path / "set", side=4, channels=3).images.shape == (3, 3, 4, 4)


@pytest.mark.parametrize("keep", [0, 20, 60])
def test_a_damaged_image_is_named(tmp_path, keep) -> None:
    image_folder(tmp_path / "set", a=2)
    bad = tmp_path / "set" / "a" / "1.png"
    bad.write_bytes(bad.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a.1\.png` should be a whole image file"):
        load(tmp_path / "set")


# --- the cache -----------------------------------------------------------------------------------


def test_a_second_load_comes_from_the_cache_and_is_equal(tmp_path, cache, monkeypatch) -> None:
    folder = image_folder(tmp_path / "set", a=2, b=1)
    first = load(folder)
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setattr(sources, "decode", None)
    second = load(folder)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert first.classes == second.classes


def test_a_changed_file_is_decoded_anew(tmp_path) -> None:
    folder = image_folder(tmp_path / "set", a=2)
    load(folder)
    draw(folder / "a" / "1.png", pixels(77))
    os.utime(folder / "a" / "1.png", ns=(1, 1))
    assert torch.equal(load(folder).images[1], planes(pixels(77)))


def test_changing_loaded_pixels_leaves_the_cache_as_it_was(tmp_path) -> None:
    folder = image_folder(tmp_path / "set", a=1)
    original = load(folder).images.clone()
    load(folder).images.zero_()
    assert torch.equal(load(folder).images, original)


@pytest.mark.parametrize("part", ["images.npy", "labels.npy", "json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x04}."])
def test_a_damaged_cache_is_made_anew(tmp_path, cache, part, content) -> None:
    folder = image_folder(tmp_path / "set", a=2)
    original = load(folder).images
    next(cache.glob(f"*.{part}")).write_bytes(content)
    assert torch.equal(load(folder).images, original)
    assert next(cache.glob(f"*.{part}")).read_bytes() != content


def test_a_cache_that_cannot_be_written_is_skipped(tmp_path, cache) -> None:
    cache.write_text("a file where the folder should be")
    assert len(load(image_folder(tmp_path / "set", a=2))) == 2


def test_the_cache_is_readable_by_its_owner_alone(tmp_path, cache) -> None:
    before = os.umask(0)
    try:
        load(image_folder(tmp_path / "set", a=1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in cache.iterdir()] == [0o600] * 3


def test_a_user_without_a_home_has_no_cache(tmp_path, monkeypatch) -> None:
    for name in ("COLLABDM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it is where no home is known
    monkeypatch.chdir(tmp_path)
    assert cache_folder() is None
    assert len(load(image_folder(tmp_path / "set", a=2))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_the_cache_is_in_the_users_cache_folder_unless_named(tmp_path, monkeypatch) -> None:
    folder = image_folder(tmp_path / "set", a=1)
    monkeypatch.delenv("COLLABDM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load(folder)
    assert len(list((tmp_path / "xdg" / "collabdm").iterdir())) == 3
    load(folder, cache=tmp_path / "named")
    assert len(list((tmp_path / "named").iterdir())) == 3
