"""Build the settings of a Plan from TOML files, presets and command-line strings.

Settings are nested dictionaries with the fields of `Plan`. If several sources set a field, the last
one takes precedence:

    preset  <  configuration file  <  options  <  `--set`
"""

import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from collabdm.data.flows.schemas import schema_of, with_changes
from collabdm.data.selection import Selection, class_names
from collabdm.data.sources import load_tallied
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.json_text import check_nesting
from collabdm.documents.picture_rules import PictureRules
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.regular_file import SMALL, read_regular
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DataError, PlanError
from collabdm.images import ImageSet
from collabdm.methods.registry import find_method
from collabdm.planning.make import make_plan, plan_for, plan_for_flows, with_rates

Settings = dict[str, Any]

Result = TypeVar("Result")

ROW_NETWORK = "MLP:width=128,depth=2"  # trained on rows

DEFAULT_METHOD = "collabdm"  # of a Plan; the image side decides whether it uses pae

#: fields of a Plan that follow from the data, so no file or `--set` may set them
DATA_FIELDS = ("classes", "image", "probe")


def merge_settings(base: Settings, over: Settings) -> Settings:
    """Merge two settings recursively; values in `over` replace those in `base`.

    >>> merge_settings({"local": {"steps": 1, "batch": 2}}, {"local": {"steps": 3}})
    {'local': {'steps': 3, 'batch': 2}}
    """
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge_settings(merged[key], value) if both else value
    return merged


def collect(*readings: Callable[[], Result]) -> list[Result]:
    """Call several functions. Raises one PlanError with the messages of all that fail."""
    results, problems = [], []
    for reading in readings:
        try:
            results.append(reading())
        except PlanError as error:
            problems.append(str(error))

    if problems:
        raise PlanError("\n".join(problems))
    return results


def nested(name: str, value: Any) -> Settings:
    """Convert a setting with a dotted name to nested dictionaries.

    >>> nested("local.steps", 3)
    {'local': {'steps': 3}}
    """
    for key in reversed(name.split(".")):
        value = {key: value}
    return value


def override(settings: Settings, overrides: Settings) -> Settings:
    """Merge `overrides` into settings whose network and schema of flows may still be strings."""
    settings = plan_settings(settings)
    if isinstance(settings.get("flows"), str) and isinstance(overrides.get("flows"), dict):
        settings["flows"] = {"schema": settings["flows"]}
    return merge_settings(settings, overrides)


def in_form(settings: Settings, form: str) -> Settings:
    """Set the form in which tables of flows are distilled, `images` or `rows`.

    Raises PlanError if there is no schema, or one for rows where images are wanted.
    """
    if settings.get("flows") is None:
        raise PlanError("`--as` needs `--flows`; found no schema of flows: name one")

    schema = flows_of(settings["flows"])
    as_rows = isinstance(schema, FlowSchema) and schema.as_rows
    if form == "images" and as_rows:
        raise PlanError(
            "`--flows` should be a schema of images for `--as images`; found one of rows: "
            "make it without `--as rows`"
        )
    if form == "images" or as_rows:
        return settings
    return settings | {"flows": with_changes(schema, {"form": form})}


def read_toml(path: Path | None) -> Settings:
    """Read settings from a TOML file; None gives no settings. Raises PlanError if unreadable."""
    if path is None:
        return {}
    try:
        settings = tomllib.loads(read_regular(path, SMALL).decode())
        check_nesting(settings)
        return settings
    except OSError as error:
        reason = error.strerror or error
        raise PlanError(f"{path} should be a readable TOML file; {reason}") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits: ValueError
        raise PlanError(f"{path} should be a readable TOML file; {error}") from error


def read_plan_config(path: Path | None) -> tuple[str, Settings]:
    """Read the preset and the settings of a Plan from a TOML file.

    Raises PlanError if the file cannot be read, or if it sets fields that follow from the data.
    """
    settings = read_toml(path)
    preset = str(settings.pop("preset", "best"))

    if fixed := sorted(set(DATA_FIELDS) & set(settings)):
        raise PlanError(
            f"{path} should not set {', '.join(fixed)}; found them there: they follow from "
            "`--data`, or from `--classes` and `--image-size`"
        )
    return preset, settings


@dataclass(frozen=True)
class ReferenceReading:
    """How a reference set is read: the choices of the user, and where its tally goes."""

    selection: Selection = Selection()
    note: Callable[[str], None] = lambda line: None


def new_plan(
    data: str | None,
    classes: str | None,
    image_size: str | None,
    settings: Settings,
    reading: ReferenceReading = ReferenceReading(),
) -> Plan:
    """Make a Plan from a public reference set, or from class names and an image size alone.

    Args:
        data: a reference set or, if `flows` is set, a sample table; the Plan reveals its mean and
            standard deviation.
        classes: class names, separated by commas and quoted as in CSV; or a file of them.
        image_size: `CHANNELSxSIDE`, to which a reference set is resized.
        settings: fields of `Plan`; `plan_settings` converts those that are strings.
        reading: how the reference set is read.

    Returns:
        The Plan with its probe.

    Raises:
        PlanError: A setting or an option is missing or invalid; the message names it.
        DataError: If the reference set cannot be read.
    """
    settings = plan_settings(settings)
    if "method" in settings:
        method = find_method(str(settings["method"]))
        settings = settings if method.name == DEFAULT_METHOD else method.adapt(settings)
    if "flows" in settings:
        settings["flows"] = flows_of(settings["flows"])

    if isinstance(settings.get("flows"), FlowSchema):
        if classes is not None or image_size is not None:
            raise PlanError(
                "the schema of `--flows` sets the classes and the image size; "
                "found `--classes` or `--image-size` as well: remove them"
            )
        return plan_for_flows(settings.pop("flows"), data, **settings)

    if data is not None:
        if classes is not None:
            raise PlanError(
                "either `--data`, or `--classes` with `--image-size`, should be given; found both"
            )
        sample = _sample(data, image_size, settings, reading)
        return plan_for(sample, **with_rates(settings, sample.shape))

    if classes is None or image_size is None:
        raise PlanError("`--data`, or both `--classes` and `--image-size`, should be given")
    image = _image_of(image_size)
    return make_plan(class_names(classes), image, **with_rates(settings, image.shape))


def _sample(
    data: str, image_size: str | None, settings: Settings, reading: ReferenceReading
) -> ImageSet:
    """Load a reference set, by the rules of the plan. Raises DataError or PlanError."""
    image = None if image_size is None else _image_of(image_size)
    selection = replace(reading.selection, rules=picture_rules(settings.get("pictures")))
    side, channels = (None, None) if image is None else (image.side, image.channels)
    sample, tally = load_tallied(data, side=side, channels=channels, selection=selection)
    for line in tally.lines():
        reading.note(line)

    planes, height, width = sample.shape
    if height != width:
        raise DataError(
            f"pictures of `{data}` should be square; found {width} x {height}: resize them with "
            f"`--image-size {planes}x{min(height, width)}`, and choose `--fit`"
        )
    return sample


def picture_rules(settings: Any) -> PictureRules:
    """Read the rules for pictures from the settings of a plan. Raises PlanError."""
    try:
        return PictureRules.model_validate(settings or {})
    except ValidationError as error:
        raise PlanError(f"`pictures`: {validation_message(error)}") from error


def _image_of(text: str) -> ImageSpec:
    """Parse an image size such as `3x32`; the mean and std are chosen to suit photographs."""
    size = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", text.strip())
    if not size:
        raise PlanError(f"`--image-size` should be CHANNELSxSIDE, e.g. 3x32; found {text!r}")

    channels, side = map(int, size.groups())
    try:
        return ImageSpec(
            channels=channels, side=side, mean=(0.5,) * channels, std=(0.25,) * channels
        )
    except ValidationError as error:
        raise PlanError(f"`--image-size`: {validation_message(error)}") from error


def plan_settings(settings: Settings) -> Settings:
    """Convert batch `all`, sketch `none` and network `NAME:k=v` from strings to Plan values."""
    words = {("batch", "all"), ("sketch", "none")}
    settings = {
        key: None if isinstance(value, str) and (key, value) in words else value
        for key, value in settings.items()
    }
    if isinstance(settings.get("network"), str):
        settings["network"] = network_settings(settings["network"])
    return settings


def flows_of(setting: Any) -> Any:
    """Return the schema of flows that a setting names; return other settings unchanged.

    A string is the name or the file of a schema. A TOML table contains that string as `schema`, and
    fields that replace those of the schema.
    """
    if isinstance(setting, str):
        return schema_of(setting)
    if isinstance(setting, dict) and isinstance(setting.get("schema"), str):
        changes = {key: value for key, value in setting.items() if key != "schema"}
        return with_changes(schema_of(setting["schema"]), changes)
    return setting


# --- lists and networks --------------------------------------------------------------------------


def list_of(text: str) -> tuple[str, ...]:
    """Split names separated by commas.

    >>> list_of("a, b,")
    ('a', 'b')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def network_list(text: str) -> tuple[str, ...]:
    """Split networks separated by commas, each with its options.

    >>> network_list("ConvNet:width=64,depth=2,AlexNet")
    ('ConvNet:width=64,depth=2', 'AlexNet')
    """
    names: list[str] = []
    for item in list_of(text):
        if names and "=" in item and ":" not in item:
            names[-1] += f",{item}"
        else:
            names.append(item)
    return tuple(names)


def network_settings(text: str) -> Settings:
    """Parse the settings of a NetworkSpec, such as `ConvNet:width=64,depth=2`.

    >>> network_settings("ConvNet:width=64,norm=batch")
    {'name': 'ConvNet', 'width': 64, 'norm': 'batch'}

    Raises PlanError if an option has no value.
    """
    name, _, rest = text.partition(":")
    settings: Settings = {"name": name}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise PlanError(f"`network` should be NAME or NAME:key=value,…; found {text!r}")
        settings[key] = int(value) if value.removeprefix("-").isdecimal() else value
    return settings


def network_of(settings: Any) -> NetworkSpec:
    """Build a network from its settings. Raises PlanError; the message names the invalid field."""
    try:
        return NetworkSpec.model_validate(settings)
    except ValidationError as error:
        raise PlanError(f"`network`: {validation_message(error)}") from error


def usual_network(plan: Plan) -> str:
    """Return the network that is trained unless the user names one: MLP for rows, else ConvNet."""
    return ROW_NETWORK if plan.has_rows else "ConvNet"


def networks_of(texts: Iterable[str], plain: NetworkSpec) -> tuple[NetworkSpec, ...]:
    """Build the networks to train from their texts.

    The bare name of the embedding network `plain` refers to that network, with its width and depth.
    """
    return tuple(
        plain if text == plain.name else network_of(network_settings(text)) for text in texts
    )
