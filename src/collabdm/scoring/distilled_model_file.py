"""Read and write a DistilledModel, the network that some methods return instead of a set."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import decode_document, encode_document, read_limited
from collabdm.documents.extra_tensors import check_extra_tensors
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.outcome_files import (
    DISTILLED_LIMIT,
    DistilledHeader,
    check_header,
    provenance_fields,
)
from collabdm.documents.outcomes import DISTILLED_MODEL_VERSION, DistilledModel
from collabdm.documents.plan_file import embedded_plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DocumentError, PlanError
from collabdm.matching.weights import declare_weights

DISTILLED_MODEL_FORMAT = "collabdm/distilled-model"


class DistilledModelHeader(DistilledHeader):
    """The header of a DistilledModel: the fields of a distilled set, and the network."""

    network: dict[str, Any]


def write_distilled_model(model: DistilledModel, path: Path | str) -> None:
    """Write a DistilledModel."""
    header = DistilledModelHeader(
        format=DISTILLED_MODEL_FORMAT,
        version=DISTILLED_MODEL_VERSION,
        classes=model.plan.classes,
        **provenance_fields(model),
        network=model.spec.model_dump(mode="json"),
    )
    atomic_write(Path(path), encode_document(model.weights, header))


def read_distilled_model(path: Path | str) -> DistilledModel:
    """Read a DistilledModel.

    Raises:
        DocumentError: the file is not a DistilledModel, or its weights do not fit its network.
    """
    where = str(path)
    content = read_limited(Path(path), DISTILLED_LIMIT)
    header, tensors = decode_document(
        content, where, DistilledModelHeader, DISTILLED_MODEL_FORMAT, DISTILLED_MODEL_VERSION
    )
    plan = embedded_plan(where, header.plan)
    check_header(where, header, plan)

    try:
        spec = NetworkSpec.model_validate(header.network)
        check_extra_tensors(declare_weights(spec, plan), tensors, "the model")
    except ValidationError as error:
        raise DocumentError(f"{where}: network: {validation_message(error)}") from error
    except (DocumentError, PlanError) as error:
        raise DocumentError(f"{where}: {error}") from error

    return DistilledModel(tensors, spec, plan, header.sites, header.method, header.versions)
