"""The outcomes beside a DistilledSet on disk: DistilledSteps and DistilledModel, as safetensors.

Read and checked as the documents are, see `files`. Of their headers only the kind differs from that of a set; that of
a model names its network as well.
"""

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from collabdm.errors import DocumentError, PlanError
from collabdm.files import (
    DISTILLED_LIMIT,
    DistilledHeader,
    check_site_counts,
    decode_document,
    encode_document,
    plan_within,
    read_limited,
    what_made,
)
from collabdm.networks import NetworkSpec
from collabdm.parts import PartSpec, check_parts
from collabdm.planning import describe
from collabdm.protocol import MODEL_VERSION, STEPS_VERSION, DistilledSteps, Plan
from collabdm.weights import DistilledModel
from collabdm.whole import write_whole


class ModelHeader(DistilledHeader):
    """Header of a DistilledModel: as that of a set, and the network."""

    network: dict[str, Any]


def _check_header(where: str, header: DistilledHeader, plan: Plan) -> None:
    """Refuse classes other than the plan's, and counts that are not one for each class."""
    if header.classes != plan.classes:
        raise DocumentError(f"{where}: classes should be those of the plan, {plan.classes}; found {header.classes}")
    check_site_counts(where, header, plan)


def write_steps(made: DistilledSteps, path: Path | str) -> None:
    """Write DistilledSteps as safetensors."""
    header = DistilledHeader(
        format="collabdm/steps",
        version=STEPS_VERSION,
        classes=made.plan.classes,
        **what_made(made),
    )
    tensors = {"images": made.images, "labels": made.labels, "rates": made.rates}
    write_whole(Path(path), encode_document(tensors, header))


def read_steps(path: Path | str) -> DistilledSteps:
    """Read DistilledSteps. Raises DocumentError where the file holds none."""
    where = str(path)
    header, tensors = decode_document(
        read_limited(Path(path), DISTILLED_LIMIT), where, DistilledHeader, "collabdm/steps", STEPS_VERSION
    )
    plan = plan_within(where, header.plan)
    _check_header(where, header, plan)
    images = tensors.get("images", torch.zeros(0))
    count, each = (*images.shape, 0, 0)[:2]
    declared = {
        "images": PartSpec(getattr(torch, plan.images), (count, each, *plan.image.shape)),
        "labels": PartSpec(torch.float32, (count, each, len(plan.classes))),
        "rates": PartSpec(torch.float32, (count,)),
    }
    check_parts(declared, tensors, where)
    if not count * each or bool((tensors["rates"] <= 0).any()):
        raise DocumentError(f"{where}: there should be at least one step, with rates above 0")
    return DistilledSteps(**tensors, plan=plan, sites=header.sites, method=header.method, versions=header.versions)


def write_model(made: DistilledModel, path: Path | str) -> None:
    """Write a DistilledModel as safetensors."""
    header = ModelHeader(
        format="collabdm/distilled-model",
        version=MODEL_VERSION,
        classes=made.plan.classes,
        **what_made(made),
        network=made.spec.model_dump(mode="json"),
    )
    write_whole(Path(path), encode_document(made.weights, header))


def read_model(path: Path | str) -> DistilledModel:
    """Read a DistilledModel. Raises DocumentError where the file holds none."""
    where = str(path)
    content = read_limited(Path(path), DISTILLED_LIMIT)
    header, tensors = decode_document(content, where, ModelHeader, "collabdm/distilled-model", MODEL_VERSION)
    plan = plan_within(where, header.plan)
    _check_header(where, header, plan)
    try:
        spec = NetworkSpec.model_validate(header.network)
        return DistilledModel(tensors, spec, plan, header.sites, header.method, header.versions)
    except ValidationError as error:
        raise DocumentError(f"{where}: network: {describe(error)}") from error
    except (DocumentError, PlanError) as error:
        raise DocumentError(f"{where}: {error}") from error
