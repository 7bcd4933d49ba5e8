"""Make a Plan: fill in the settings that depend on the data, validate, and add the probe.

`make_plan` chooses the defaults that depend on the classes and the size of the images,
`plan_for_flows` those for tables of flows, and `with_rates` the learning rates.
"""

import math
from typing import Any

from pydantic import ValidationError

from collabdm.data.flows.images import load_flows
from collabdm.data.sources import DIGIT_NAMES
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.specs import OPERATIONS
from collabdm.errors import PlanError, printable
from collabdm.images import ImageSet, check_image_set, measure_normalisation
from collabdm.planning.private import filled, has_budget, with_clip, with_private_defaults
from collabdm.planning.probe import probe

SMALL_SIDE = 24  # pixels; images with a smaller side count as small

#: learning rates for small images, measured: docs/log.md, entries 2 and 8
SMALL_RATES = {"local": 0.2, "refinement": 1.0}

#: a rate that falls to 0 may begin higher than a constant one, but not on larger grey images:
#: docs/log.md, entry 15
FALLING_RATES = {"small": 3.0, "grey": 10.0, "colour": 30.0}

#: the refinement of a round that starts from averages or noise
FROM_AVERAGES: dict[str, Any] = {"passes": 16, "matching": {"schedule": "cosine"}}

#: the methods whose sites send averages by default, and how many of a class: docs/log.md, entry 16
AVERAGING_METHODS = ("collabdm", "collabdm-pae")
MOST_AVERAGES = 10  # images; each stores pae^2 averages

#: measured: docs/log.md, entry 20
ROW_DEFAULTS: dict[str, Any] = {
    "images": "float32",
    "network": {"name": "Thresholds", "width": 256},
    "steps": 50,
    "augment": (),
    "pae": 1,
    "ipc": 50,
    "local": {"method": "none"},
    "refinement": {
        "passes": 24,
        "matching": {"optimiser": "adam", "learning_rate": 0.2, "schedule": "cosine"},
    },
}


def make_plan(classes: tuple[str, ...], image: ImageSpec, **settings: Any) -> Plan:
    """Make a Plan for given classes and images.

    Args:
        classes: names of the classes.
        image: shape and normalisation of the images.
        settings: fields of `Plan`. By default `augment` contains every operation, except flip if
            the classes are the digits 0 to 9; `pae` is 2 for images with an even side of at least
            16 (a quarter of a smaller image shows too little). Unless `local` states how images
            are made, sites send statistics and averages of similar images, or statistics alone if
            the plan has masks, a privacy budget or `flows`; `refinement` is by default that of a
            start from these. `local.images` is at most `ipc`: 10 averages; otherwise `ipc` divided
            among the sites, plus one. With a `privacy` budget, the defaults are those of
            `planning.private`, which also chooses `privacy.clip`.

    Returns:
        The Plan with its probe.

    Raises:
        PlanError: A setting is missing or invalid; the message names it.
    """
    _check_names(classes)
    settings = with_private_defaults(settings)
    settings.setdefault("pae", 2 if image.side >= 16 and image.side % 2 == 0 else 1)
    settings.setdefault("augment", default_policy(classes))
    if "local" not in settings:
        settings = with_rates(settings, image.shape)
    if leaves_images_open(settings):
        settings["local"] = safe_images(settings)

    try:
        if has_budget(settings):
            without = Plan(classes=classes, image=image, **settings | {"privacy": None})
            settings = with_clip(settings, without)
        plan = Plan(classes=classes, image=image, **settings)
    except ValidationError as error:
        raise PlanError(validation_message(error, Plan.model_fields)) from error

    if plan.local.images == 0 and plan.local.method != "none":
        local = plan.local.model_copy(update={"images": default_images(plan)})
        plan = plan.model_copy(update={"local": local})

    return plan.model_copy(update={"probe": probe(plan)})


def leaves_images_open(settings: dict[str, Any]) -> bool:
    """Return whether settings of a Plan leave open how the images of a site are made."""
    local = settings.get("local", {})
    return isinstance(local, dict) and set(local) <= {"images", "average_of"}


def safe_images(settings: dict[str, Any]) -> dict[str, Any]:
    """Choose the images of a site: averages of similar images, where statistics are sent openly.

    Elsewhere a number of images asks for distilled ones, and without it there are none.
    """
    local = settings.get("local", {})
    hidden = any(settings.get(name) is not None for name in ("masking", "privacy", "flows"))
    method = settings.get("method", Plan.model_fields["method"].default)
    if method in AVERAGING_METHODS and not hidden and settings.get("steps") != 0:
        return {"method": "averages"} | local
    return {"method": "dm" if local else "none"} | local


def default_images(plan: Plan) -> int:
    """Choose the number of images that a site sends of each class.

    One site may have nearly all images of a class, and averages take few bytes, so every site sends
    as many of them as the server can use, up to a limit.
    """
    most = (
        MOST_AVERAGES if plan.local.method == "averages" else math.ceil(plan.ipc / plan.sites) + 1
    )
    return min(plan.ipc, most)


def _check_names(classes: tuple[str, ...]) -> None:
    """Check that a new plan has two classes, and names that are printable. Raises PlanError.

    Plans are read without the second check, so that earlier ones remain valid.
    """
    if len(classes) < 2:
        raise PlanError(
            f"`classes` should be at least two names; found {', '.join(classes) or 'none'}: sort "
            "the pictures into a folder for each class, or list their labels in metadata.csv"
        )
    if controlled := [name for name in classes if printable(name) != name]:
        raise PlanError(
            f"`classes` should be without control characters; found {', '.join(controlled)}: "
            "rename them"
        )


def plan_for(data: ImageSet, **settings: Any) -> Plan:
    """Make a Plan for data that resembles a public reference set.

    The Plan contains, and so reveals, the mean and standard deviation of the set.

        plan_for(load("digits"), sites=2, ipc=10, steps=20, network={"width": 32, "depth": 2})

    Args:
        data: the reference set: its classes, image size and normalisation are those of the Plan.
        settings: fields of `Plan`, with the defaults of `make_plan`: usually `sites` (their
            number), `site_names`, `ipc` (images per class of the set), `steps` (random networks),
            `batch`, `network`, `local`, `refinement` and `seed`.

    Returns:
        The Plan with its probe.

    Raises:
        PlanError: A setting is unknown or invalid; the message names it.
        DataError: The data is not an ImageSet.
    """
    check_image_set("data", data)
    channels, side, _ = data.shape
    constants = measure_normalisation(data)
    image = ImageSpec(channels=channels, side=side, mean=constants.mean, std=constants.std)
    return make_plan(data.classes, settings.pop("image", image), **settings)


def plan_for_flows(schema: FlowSchema, sample: str | None = None, **settings: Any) -> Plan:
    """Make a Plan for tables of flows.

    Args:
        schema: how a table becomes images.
        sample: a public table, to measure the mean and standard deviation of the pixels; None uses
            0.25 for both.
        settings: fields of `Plan`. By default `pae` is 1 and `augment` is empty, since each
            position in an image of flows has its own meaning. If `local` is set, `local.images` is
            `ipc` by default, so that one site with nearly all flows of a class can supply all
            images of that class.

    Returns:
        The Plan with its probe.

    Raises:
        PlanError: A setting is missing or invalid; the message names it.
        DataError: If the sample does not fit the schema.
    """
    defaults: dict[str, Any] = {"pae": 1, "augment": (), "flows": schema}
    if schema.as_rows:
        settings = for_rows(settings, schema) | {"flows": schema}
        return make_plan(schema.classes, row_image(schema), **settings)

    settings = defaults | with_rates(settings, (1, schema.side, schema.side))

    local = settings.get("local")
    if isinstance(local, dict) and not local.get("images") and local.get("method", "dm") != "none":
        ipc = settings.get("ipc", Plan.model_fields["ipc"].default)
        settings["local"] = local | {"images": ipc}

    if sample is not None:
        return plan_for(load_flows(sample, schema), **settings)
    image = ImageSpec(channels=1, side=schema.side, mean=(0.25,), std=(0.25,))
    return make_plan(schema.classes, image, **settings)


def for_rows(settings: dict[str, Any], schema: FlowSchema) -> dict[str, Any]:
    """Fill in the settings of a plan for rows, and the columns of its network of thresholds."""
    network = settings.get("network", ROW_DEFAULTS["network"])
    other = isinstance(network, dict) and network.get("name", "Thresholds") != "Thresholds"
    defaults = ROW_DEFAULTS | ({"network": network} if other else {})
    settings = filled(settings, defaults)

    if not other and isinstance(settings["network"], dict):
        settings["network"] = {"columns": schema.widths} | settings["network"]
    return settings


def row_image(schema: FlowSchema) -> ImageSpec:
    """Describe rows as images of one pixel; the constants follow from the encoding alone."""
    channels = schema.width
    return ImageSpec(channels=channels, side=1, mean=(0.5,) * channels, std=(0.25,) * channels)


def with_rates(settings: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    """Add the learning rates that suit the images and the schedule, unless the user sets them.

    `shape` is that of the images: channels, height, width.

    The default rates of a Plan suit images of 32 x 32 pixels; for small images they are unsuitable:
    pixels leave their range. A rate is not added where an optimiser is set.

    Unless `local` asks for distilled or real images, refinement starts from averages or noise,
    which takes more passes; those are added as well.
    """
    filled = dict(settings)
    local_open = leaves_images_open(settings)
    from_averages = local_open or _local_method(settings) in ("averages", "none")
    if from_averages and isinstance(settings.get("refinement", {}), dict):
        filled["refinement"] = FROM_AVERAGES | settings.get("refinement", {})

    for part in SMALL_RATES:
        own = filled.get(part, {})
        if not isinstance(own, dict) or (part == "local" and from_averages):
            continue

        matching = own.get("matching") or {}
        if not isinstance(matching, dict) or {"learning_rate", "optimiser"} & set(matching):
            continue
        rate = _rate(part, shape, matching.get("schedule") == "cosine")
        if rate is not None:
            filled[part] = own | {"matching": matching | {"learning_rate": rate}}
    return filled


def _local_method(settings: dict[str, Any]) -> Any:
    """Return how settings of a Plan make the images of a site; None if they do not state it."""
    local = settings.get("local")
    return local.get("method") if isinstance(local, dict) else getattr(local, "method", None)


def _rate(part: str, shape: tuple[int, ...], falls: bool) -> float | None:
    """Choose the learning rate of a part of the plan; None keeps the plan's default."""
    small = shape[-1] < SMALL_SIDE
    if part == "refinement" and falls:
        return FALLING_RATES["small" if small else "grey" if shape[0] == 1 else "colour"]
    return SMALL_RATES[part] if small else None


def default_policy(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return all augmentations, but without flip for digits: a mirrored digit is not a digit.

    Other numbers are numbers of classes, such as 0 to 4, and say nothing about the pictures.
    """
    digits = tuple(name.strip() for name in classes) == DIGIT_NAMES
    return tuple(o for o in OPERATIONS if not (digits and o == "flip"))
