"""How pictures of every kind become bytes: transparency, depth, frames, orientation, fit."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydantic import ValidationError

from collabdm.data.conversion import Conversion, UnreadableError
from collabdm.data.image_files import read_image
from collabdm.data.selection import Selection
from collabdm.data.sources import load, load_tallied
from collabdm.data.tally import Remarks
from collabdm.documents.picture_rules import PictureRules
from collabdm.documents.plan import Plan
from collabdm.errors import DataError

SIDE = 16
DISC = (np.mgrid[:SIDE, :SIDE] - 8) ** 2
DISC = DISC.sum(0) < 25


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLABDM_CACHE", str(tmp_path / "cache"))


def encoded(picture: Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **settings)
    return buffer.getvalue()


def read(
    content: object, rules: PictureRules = PictureRules(), channels: int | None = 1
) -> tuple[np.ndarray, dict[str, int]]:
    remarks = Remarks()
    planes = read_image(content, "it", Conversion(None, channels, rules), remarks)
    return planes, remarks.counts


# --- transparency --------------------------------------------------------------------------------


def glyph(under: int, mode: str) -> bytes:
    """A dark disc on a transparent ground, with an invisible colour under it."""
    alpha = np.where(DISC, 255, 0).astype(np.uint8)
    level = np.where(DISC, 40, under).astype(np.uint8)
    planes = [level, alpha] if mode == "LA" else [level, level, level, alpha]
    return encoded(Image.fromarray(np.dstack(planes)))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("under", [0, 255])
def test_transparent_pixels_show_the_ground_whatever_is_under_them(mode, under) -> None:
    planes, counts = read(glyph(under, mode))
    assert (planes[0, 0, 0], planes[0, 8, 8]) == (255, 40)
    assert counts == {"transparency": 1}
    planes, _ = read(glyph(under, mode), PictureRules(ground="#000000"))
    assert (planes[0, 0, 0], planes[0, 8, 8]) == (0, 40)


def test_a_transparent_palette_and_a_transparent_grey_show_the_ground() -> None:
    for mode in ("P", "L"):
        picture = Image.fromarray(np.where(DISC, 0, 200).astype(np.uint8)).convert(mode)
        entry = picture.getpixel((0, 0))
        planes, counts = read(encoded(picture, transparency=entry))
        assert planes[0, 0, 0] == 255
        assert planes[0, 8, 8] == 0
        assert counts == {"transparency": 1}


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    colours[..., 3] = 255
    planes, counts = read(encoded(Image.fromarray(colours)), channels=3)
    assert np.array_equal(planes.transpose(1, 2, 0), colours[..., :3])
    assert counts == {}


# --- depth ---------------------------------------------------------------------------------------

DEEP = np.where(DISC, 4095, 1000).astype(np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_need_a_range(kind) -> None:
    content = encoded(Image.fromarray(DEEP), kind)
    with pytest.raises(DataError, match=r"should have 8 bits.*from 1000 to 4095.*--range full"):
        read(content)
    planes, counts = read(content, PictureRules(range="0..4095"))
    assert (planes[0, 0, 0], planes[0, 8, 8]) == (round(1000 / 4095 * 255), 255)
    assert counts == {"deep_levels": 1}
    planes, _ = read(content, PictureRules(range="full"))
    assert planes[0, 8, 8] == round(4095 / 65535 * 255)


def test_levels_outside_the_range_are_clipped_and_counted() -> None:
    planes, counts = read(encoded(Image.fromarray(DEEP)), PictureRules(range="1500..3000"))
    assert set(planes.flatten().tolist()) == {0, 255}
    assert counts == {"outside_range": 1, "deep_levels": 1}


def test_real_levels_need_a_range_and_arrays_follow_the_same_rule() -> None:
    real = Image.fromarray(np.where(DISC, 1.0, -3.0).astype(np.float32))
    with pytest.raises(DataError, match="from -3 to 1"):
        read(encoded(real, "TIFF"))
    planes, _ = read(encoded(real, "TIFF"), PictureRules(range="-3..1"))
    assert (planes[0, 0, 0], planes[0, 8, 8]) == (0, 255)
    array, _ = read(DEEP, PictureRules(range="0..4095"))
    assert array[0, 8, 8] == 255


def test_the_measured_range_of_all_pictures_is_in_the_error(tmp_path) -> None:
    (tmp_path / "set" / "cat").mkdir(parents=True)
    for i, top in enumerate((900, 3000, 2000)):
        level = np.full((8, 8), top, np.uint16)
        level[0] = 100 - i
        Image.fromarray(level).save(tmp_path / "set" / "cat" / f"{i}.png")
    with pytest.raises(DataError, match=r"and 2 other pictures .*--range 98\.\.3000"):
        load(tmp_path / "set")
    chosen = Selection(rules=PictureRules(range="98..3000"))
    data, tally = load_tallied(tmp_path / "set", selection=chosen)
    assert int(data.images.max()) == 255
    assert [(r.reason, r.count) for r in tally.remarks] == [("deep_levels", 3)]


def test_pictures_of_eight_bits_are_unchanged_by_a_range() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    planes, counts = read(encoded(Image.fromarray(levels)), PictureRules(range="0..4095"))
    assert np.array_equal(planes[0], levels)
    assert counts == {}


def deep_colour_png() -> bytes:
    rows = b"".join(b"\0" + np.full((4, 3), 0x8001, ">u2").tobytes() for _ in range(4))

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


def test_colours_of_sixteen_bits_are_counted_and_have_the_full_range_only() -> None:
    planes, counts = read(deep_colour_png(), channels=3)
    assert set(planes.flatten().tolist()) == {0x80}
    assert counts == {"deep_levels": 1}
    with pytest.raises(DataError, match="colours of 16 bits"):
        read(deep_colour_png(), PictureRules(range="0..40000"), channels=3)


# --- frames and orientation ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames_is_used_and_counted(kind) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (0, 255)]
    settings = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **settings)
    planes, counts = read(content)
    assert planes.max() == 0
    assert counts == {"several_frames": 1}


def exif(entries: bytes) -> bytes:
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries


def photo(payload: bytes | None) -> bytes:
    colours = np.zeros((16, 24, 3), np.uint8)
    colours[:, :12] = (250, 10, 10)
    colours[:, 12:] = (10, 10, 250)
    content = encoded(Image.fromarray(colours), "JPEG", quality=95)
    if payload is None:
        return content
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + content[2:]


TAG = struct.pack("<HHHIHH", 1, 0x112, 3, 1, 6, 0) + bytes(4)
ODD_TAG = struct.pack("<HHHIHH", 1, 0x112, 3, 1, 9, 0) + bytes(4)
WORD_TAG = struct.pack("<HHHI", 1, 0x112, 2, 4) + b"up\0\0" + bytes(4)
CUT = exif(TAG)[:18]


def test_a_photograph_is_turned_upright() -> None:
    assert read(photo(exif(TAG)), channels=3)[0].shape == (3, 24, 16)


@pytest.mark.parametrize(
    "payload", [exif(ODD_TAG), exif(WORD_TAG), CUT, b"Exif\0\0Exif" + bytes(20)]
)
def test_damaged_orientation_data_turn_nothing(payload) -> None:
    planes, counts = read(photo(payload), channels=3)
    assert planes.shape == (3, 16, 24)
    assert set(counts) <= {"orientation"}


def test_rubbish_in_the_metadata_of_a_png_is_no_fault() -> None:
    info = PngInfo()
    info.add(b"eXIf", b"nonsense here")
    planes, _ = read(encoded(Image.new("L", (8, 8), 99), pnginfo=info))
    assert set(planes.flatten().tolist()) == {99}


# --- size and fit --------------------------------------------------------------------------------


def test_a_picture_is_squashed_or_cropped_as_the_rules_say() -> None:
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    results = {}
    for fit in ("squash", "crop"):
        remarks = Remarks()
        conversion = Conversion(8, 1, PictureRules(fit=fit))
        results[fit] = read_image(encoded(Image.fromarray(wide)), "it", conversion, remarks)
        assert remarks.counts == {"squashed" if fit == "squash" else "cropped": 1}
    assert set(results["crop"].flatten().tolist()) == {200}
    assert results["squash"].min() == 0


def test_the_limit_of_pixels_is_raised_by_an_environment_variable(monkeypatch) -> None:
    content = encoded(Image.new("1", (8000, 7000)))
    with pytest.raises(UnreadableError, match="8,000 x 7,000 pixels.*set COLLABDM_MOST_PIXELS"):
        read(content)
    monkeypatch.setenv("COLLABDM_MOST_PIXELS", "60000000")
    assert read_image(content, "it", Conversion(8, 1)).shape == (1, 8, 8)


@pytest.mark.parametrize(
    "rules", [{"range": "5..2"}, {"range": "all"}, {"ground": "red"}, {"fit": "stretch"}]
)
def test_rules_that_mean_nothing_are_refused(rules) -> None:
    with pytest.raises(ValidationError):
        PictureRules(**rules)


def test_a_plan_without_rules_for_pictures_has_the_digest_of_earlier_versions() -> None:
    image = {"channels": 1, "side": 8, "mean": (0.5,), "std": (0.25,)}
    plain = Plan(classes=("a", "b"), image=image)
    assert "pictures" not in plain.model_dump()
    ruled = Plan(classes=("a", "b"), image=image, pictures={"fit": "crop"})
    assert ruled.digest != plain.digest
    assert Plan.model_validate_json(ruled.model_dump_json()) == ruled


def test_an_image_may_have_a_side_of_224() -> None:
    image = {"channels": 3, "side": 224, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    assert Plan(classes=("a", "b"), image=image).image.side == 224
