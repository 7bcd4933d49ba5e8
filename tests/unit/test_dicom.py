"""DICOM pictures: rescale, window, inversion, ranges of the plan."""

import io
from pathlib import Path

import numpy as np
import pytest

from collabdm.data.conversion import Conversion, UnreadableError
from collabdm.data.image_files import read_image
from collabdm.data.sources import load
from collabdm.data.tally import Remarks
from collabdm.documents.picture_rules import PictureRules
from collabdm.errors import DataError

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")

LEVELS = np.array([[0, 1000], [1100, 3000]], np.uint16)


def dicom(levels: np.ndarray = LEVELS, **header: object) -> bytes:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = levels.shape[-2:]
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit = 15
    file.PhotometricInterpretation = "MONOCHROME2"
    if levels.ndim == 3:
        file.NumberOfFrames = len(levels)
    for name, value in header.items():
        setattr(file, name, value)
    file.PixelData = levels.tobytes()
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def read(content: bytes, rules: PictureRules = PictureRules()) -> tuple[list, dict[str, int]]:
    remarks = Remarks()
    planes = read_image(content, "it", Conversion(None, 1, rules), remarks)
    return planes[0].tolist(), remarks.counts


RESCALED = {"RescaleSlope": 1, "RescaleIntercept": -1000}
WINDOW = {"WindowCenter": 50, "WindowWidth": 101}


def test_the_window_of_the_header_is_applied_to_rescaled_levels() -> None:
    levels, counts = read(dicom(**RESCALED, **WINDOW))
    low = round(255 * ((0 - 49.5) / 100 + 0.5))
    assert levels == [[0, low], [255, 255]]
    assert counts == {"window": 1}


def test_monochrome1_is_inverted() -> None:
    levels, _ = read(dicom(**RESCALED, **WINDOW, PhotometricInterpretation="MONOCHROME1"))
    assert levels[0][0] == 255
    assert levels[1] == [0, 0]


def test_the_range_of_the_plan_replaces_the_window_in_rescaled_units() -> None:
    levels, counts = read(dicom(**RESCALED, **WINDOW), PictureRules(range="-1000..1000"))
    assert levels == [[0, round(255 / 2)], [round(255 * 0.55), 255]]
    assert counts == {"outside_range": 1, "deep_levels": 1}


def test_without_a_window_a_range_is_needed() -> None:
    with pytest.raises(DataError, match="from 0 to 3000: make the plan with `--range full`"):
        read(dicom())
    levels, _ = read(dicom(), PictureRules(range="full"))
    assert levels[1][1] == round(255 * 3000 / 65535)


def test_the_first_of_several_frames_is_used() -> None:
    levels, counts = read(dicom(np.stack([LEVELS, LEVELS * 0]), **WINDOW))
    assert levels[0][1] == 255
    assert counts == {"several_frames": 1, "window": 1}


def test_a_folder_of_dicom_files_is_read_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    for name in ("normal", "nodule"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "0.dcm").write_bytes(dicom(**WINDOW))
    assert load(tmp_path / "set", cache=tmp_path / "cache").classes == ("nodule", "normal")
    whole = dicom(**WINDOW)
    with pytest.raises(UnreadableError, match="it is damaged"):
        read(whole[:200])
