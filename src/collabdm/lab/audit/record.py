"""The results of an audit, audit.json: a pydantic model, written by `audit` and read by `report`.

plan, data, settings, members, shadows, attacks, canaries, reconstruction, pairs, compute, ...
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.frozen_model import validation_message
from collabdm.errors import DataError
from collabdm.lab.audit.settings import AuditSettings
from collabdm.lab.results import ComputeRecord, Record, read_json

RECORD_NAME, PICTURE_NAME = "audit.json", "audit.png"

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Estimate(Record):
    """A share with its 95 % interval."""

    value: Share
    low: Share
    high: Share


class AttackRecord(Record):
    """One attack on membership.

    `members` and `non_members` are numbers of trials, over all rounds.
    """

    released: str
    attack: str
    members: Count
    non_members: Count
    auc: Estimate
    tpr_at_01_percent: Estimate
    tpr_at_1_percent: Estimate


class CanaryRecord(Record):
    """The exposures, in bits, of the canaries of one kind; log2(alike + 1) is the most.

    A canary's exposure is log2(alike + 1) - log2(rank) among `alike` images drawn alike. Without a
    leak its mean is about 1.44 bits.
    """

    released: str
    attack: str
    kind: str
    alike: Count
    exposures: tuple[float, ...]


class ReconstructionRecord(Record):
    """The reconstruction of a small class from its means.

    Attributes:
        images: the size of the class, n.
        ratio: numbers released over numbers held, T r / (n d).
        iterations: of each restart.
        restarts: how often the attack began anew; the best fit counts.
        misfit: the squared distance of the means, relative to that of single images.
        recovered: the share of the images that are nearest, of all compared, to a reconstruction.
        recovered_others: the same for images that were not used.
        auc: of the distance to the nearest reconstruction.
        psnr: the peak signal-to-noise ratio of each image's nearest reconstruction, in dB.
        psnr_others: the same, of the others: their median.
    """

    images: Count
    ratio: float
    iterations: Count
    restarts: Count
    misfit: float
    recovered: Share
    recovered_others: Share
    auc: Share
    psnr: tuple[float, ...]
    psnr_others: float


class PairRecord(Record):
    """A released image and the private one nearest to it.

    Distances are root mean squares over pixels, in grey levels of 0 .. 255; `other` is the distance
    to the nearest image that the round does not use.
    """

    released: str
    label: str
    distance: float
    other: float


class AuditRecord(Record):
    """The results of an audit."""

    plan: str
    method: str
    data: str
    data_digest: str
    settings: AuditSettings
    command: str
    attacks: tuple[AttackRecord, ...]
    canaries: tuple[CanaryRecord, ...] = ()
    reconstruction: ReconstructionRecord | None = None
    pairs: tuple[PairRecord, ...] = ()
    compute: ComputeRecord
    versions: dict[str, str]


def write_record(record: AuditRecord, folder: Path) -> None:
    """Write audit.json."""
    content = json.dumps(record.document(), indent=2) + "\n"
    atomic_write(folder / RECORD_NAME, content.encode())


def read_record(folder: Path) -> AuditRecord | None:
    """Read audit.json; None if the folder has none. Raises DataError if it is damaged."""
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    try:
        return AuditRecord.model_validate_json(json.dumps(read_json(path)), strict=True)
    except ValidationError as error:
        raise DataError(
            f"{path}: {validation_message(error)}: restore the file, or repeat `collabdm audit`"
        ) from error
