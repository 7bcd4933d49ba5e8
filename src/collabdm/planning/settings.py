"""TODO planning.settings."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.data.flows.draft import schema_of, with_changes
from collabdm.data.sources import load
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.specs import OPERATIONS, NetworkSpec
from collabdm.errors import PlanError
from collabdm.methods.registry import METHODS
from collabdm.planning.make import make_plan, plan_for, plan_for_flows, with_rates

Settings = dict[str, Any]


def merge_settings(base: Settings, over: Settings) -> Settings:
    """`base` with `over` on top, part by part.

    >>> merge_settings({"local": {"steps": 1, "batch": 2}}, {"local": {"steps": 3}})
    {'local': {'steps': 3, 'batch': 2}}
    """
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge_settings(merged[key], value) if both else value
    return merged


def given(**options: Any) -> Settings:
    """The options that were said."""
    return {name: value for name, value in options.items() if value is not None}


def number_of(text: str) -> int | None:
    """The whole number that a text is, or None."""
    return int(text) if re.fullmatch("-?[0-9]{1,18}", text.strip()) else None


def batch_of(text: str | None) -> int | str | None:
    """A batch size; `all` stays a word, since None means that nothing was said."""
    if text is None or text == "all":
        return text
    size = number_of(text)
    if size is None or size < 1:
        raise PlanError(f"`batch` should be a number of at least 1, or all; found {text!r}")
    return size


def sketch_of(width: int | None) -> int | str | None:
    """A sketch width; 0 says that there is none."""
    return "none" if width == 0 else width


def plan_settings(settings: Settings) -> Settings:
    """Words of the command line in the Plan's values: batch all, sketch none, network NAME:width=64."""
    words = {("batch", "all"), ("sketch", "none")}
    settings = {k: None if isinstance(v, str) and (k, v) in words else v for k, v in settings.items()}
    if isinstance(settings.get("network"), str):
        settings["network"] = network_settings(settings["network"])
    return settings


def sites_of(text: str | None) -> Settings:
    """`5`, or names by commas."""
    if text is None:
        return {}
    number = number_of(text)
    if number is not None:
        return {"sites": number, "site_names": None}
    names = list_of(text)
    return {"sites": len(names), "site_names": names}


def list_of(text: str) -> tuple[str, ...]:
    """Names by commas.

    >>> list_of("a, b,")
    ('a', 'b')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())


def network_list(text: str) -> tuple[str, ...]:
    """Networks by commas, each with its options.

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


def new_plan(data: str | None, classes: str | None, image_size: str | None, settings: Settings) -> Plan:
    """A plan after a public reference set, or after class names and an image size alone."""
    settings = plan_settings(settings)
    method = METHODS.get(settings.get("method", ""))
    if method is not None and method.options is not None:
        settings = method.adapt(settings)
    if "flows" in settings:
        settings["flows"] = flows_of(settings["flows"])
    if isinstance(settings.get("flows"), FlowSchema):
        if classes is not None or image_size is not None:
            raise PlanError("`--flows` says the classes and the image size; found them given as well")
        return plan_for_flows(settings.pop("flows"), data, **settings)
    if data is not None:
        if classes is not None or image_size is not None:
            raise PlanError("either `--data`, or `--classes` with `--image-size`, should be given; found both")
        sample = load(data)
        return plan_for(sample, **with_rates(settings, sample.shape[-1]))
    if classes is None or image_size is None:
        raise PlanError("`--data`, or both `--classes` and `--image-size`, should be given")
    found = re.fullmatch(r"([0-9]{1,4})x([0-9]{1,4})", image_size.strip())
    if not found:
        raise PlanError(f"`--image-size` should be CHANNELSxSIDE, e.g. 3x32; found {image_size!r}")
    channels, side = map(int, found.groups())
    try:
        image = ImageSpec(channels=channels, side=side, mean=(0.5,) * channels, std=(0.25,) * channels)
    except ValidationError as error:
        raise PlanError(f"`--image-size`: {validation_message(error)}") from error
    return make_plan(list_of(classes), image, **with_rates(settings, side))


def said_of_plan(config: Path | None, preset: str | None, options: Settings) -> tuple[str, Settings]:
    """The preset and the settings of a plan that were said, in a TOML file or by options, which win."""
    said = read_toml(config)
    written_preset = str(said.pop("preset", "best"))
    if fixed := sorted({"classes", "image", "probe"} & set(said)):
        raise PlanError(
            f"{config} should leave {', '.join(fixed)} to `--data`, or to `--classes` and `--image-size`; "
            "found them there"
        )
    return preset or written_preset, merge_settings(said, options)


def flows_of(said: Any) -> Any:
    """A schema from its name or file, or from a table with that as `schema` and what is to be different."""
    if isinstance(said, str):
        return schema_of(said)
    if isinstance(said, dict) and isinstance(said.get("schema"), str):
        return with_changes(schema_of(said["schema"]), {k: v for k, v in said.items() if k != "schema"})
    return said


def read_toml(path: Path | None) -> Settings:
    """The settings in a TOML file, if there is one. Raises PlanError where it cannot be read."""
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{path} should be a readable TOML file; {error}") from error


def policy_of(text: str | None) -> tuple[str, ...] | None:
    """Operations by underscores; `none` for none, None where nothing was said."""
    if text is None:
        return None
    names = () if text == "none" else tuple(text.split("_"))
    unknown = sorted(set(names) - set(OPERATIONS))
    if unknown:
        raise PlanError(f"`augment` should be of {'_'.join(OPERATIONS)}; found {', '.join(unknown)}")
    return names


def network_of(settings: Any) -> NetworkSpec:
    """A network from its settings. Raises PlanError, naming what should change."""
    try:
        return NetworkSpec.model_validate(settings)
    except ValidationError as error:
        raise PlanError(f"`network`: {validation_message(error)}") from error


def network_settings(text: str) -> dict[str, Any]:
    """`ConvNet:width=64,depth=2` as settings of a NetworkSpec.

    >>> network_settings("ConvNet:width=64,norm=batch")
    {'name': 'ConvNet', 'width': 64, 'norm': 'batch'}
    """
    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {"name": name}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise PlanError(f"`network` should be NAME or NAME:key=value,…; found {text!r}")
        settings[key] = int(value) if value.removeprefix("-").isdecimal() else value
    return settings


def networks_of(texts: Iterable[str], plain: NetworkSpec) -> tuple[NetworkSpec, ...]:
    """Networks to train. The bare name of the embedding network means just that one, with its width and depth."""
    return tuple(plain if text == plain.name else network_of(network_settings(text)) for text in texts)
