"""Making a Plan: settings filled in, bytes and work foretold, and the probe that guards the seeds.

Bytes of a contribution that holds P classes, of width r and `c` bytes a number:

    steps (P (r c + 4 [int8]) + 8)  +  P images (channels side^2 (1 uint8 | 4 float32) + 8)  +  24 P  +  header

The probe is computed at step 0 from an image of uniforms: a digest of the network's weights (equal to
the bit on every machine) and the image's sketched embedding under the augmentation of class 0 (equal to
float tolerance). A site whose library computes something else would poison the round unseen; it refuses.
"""

import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.data.flows.images import load_flows
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.specs import OPERATIONS
from collabdm.errors import PlanError
from collabdm.images import ImageSet, measure_normalisation
from collabdm.planning.probe import probe

SMALL_SIDE = 24  # images below it are small


SMALL_RATES = {
    "local": 0.2,
    "refinement": 1.0,
}  # measured on such images: docs/log.md, entries 2 and 8


def make_plan(classes: tuple[str, ...], image: ImageSpec, **settings: Any) -> Plan:
    """A Plan for images of the given classes and shape; `settings` are fields of `Plan`.

    Left out: `augment` is every operation, without flip where the classes are digits; `pae` is 2 for
    images of even side from 16 on (the quarter of a smaller one shows too little); `local.images` is a
    site's share of ipc and one more. Raises PlanError, naming the field.
    """
    settings.setdefault("pae", 2 if image.side >= 16 and image.side % 2 == 0 else 1)
    settings.setdefault("augment", default_policy(classes))
    try:
        plan = Plan(classes=classes, image=image, **settings)
    except ValidationError as error:
        raise PlanError(validation_message(error)) from error
    if plan.local.images == 0 and plan.local.method != "none":
        share = min(plan.ipc, math.ceil(plan.ipc / plan.sites) + 1)
        plan = plan.model_copy(update={"local": plan.local.model_copy(update={"images": share})})
    return plan.model_copy(update={"probe": probe(plan)})


def plan_for(data: ImageSet, **settings: Any) -> Plan:
    """A Plan for data like `data` (a public reference set: its mean and std become public)."""
    channels, side, _ = data.shape
    constants = measure_normalisation(data)
    measured = ImageSpec(channels=channels, side=side, mean=constants.mean, std=constants.std)
    return make_plan(data.classes, settings.pop("image", measured), **settings)


def plan_for_flows(schema: FlowSchema, sample: str | None = None, **settings: Any) -> Plan:
    """A plan for tables of flows; a public sample gives mean and standard deviation of the pixels.

    Left out: `pae` is 1 and `augment` is nothing, since a place in an image of traffic has a meaning; `local.images`
    is ipc, so that a station which holds nearly all of a class can give all of its images.
    """
    plain: dict[str, Any] = {"pae": 1, "augment": (), "flows": schema}
    settings = plain | with_rates(settings, schema.side)
    local = settings.get("local") or {}
    if isinstance(local, dict) and not local.get("images") and local.get("method", "dm") != "none":
        settings["local"] = local | {
            "images": settings.get("ipc", Plan.model_fields["ipc"].default)
        }
    if sample is not None:
        return plan_for(load_flows(Path(sample), schema), **settings)
    return make_plan(
        schema.classes,
        ImageSpec(channels=1, side=schema.side, mean=(0.25,), std=(0.25,)),
        **settings,
    )


def with_rates(settings: dict[str, Any], side: int) -> dict[str, Any]:
    """Settings with the learning rates that suit images of that side, where they say neither rate nor optimiser.

    The defaults of a Plan are for 32 x 32 pixels; small images leave the range of pixels with them.
    """
    if side >= SMALL_SIDE:
        return settings
    filled = dict(settings)
    for part, rate in SMALL_RATES.items():
        said = filled.get(part) or {}
        matching = (
            (said.get("matching") or {}) if isinstance(said, dict) else None
        )  # the Plan refuses what is none
        if isinstance(matching, dict) and not {"learning_rate", "optimiser"} & set(matching):
            filled[part] = said | {"matching": matching | {"learning_rate": rate}}
    return filled


def default_policy(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Every operation; a digit is not the same when flipped."""
    digits = all(name.strip().isdigit() for name in classes)
    return tuple(o for o in OPERATIONS if not (digits and o == "flip"))
