"""Settings as a person says them (options, TOML files, presets) turned into settings of a Plan or an Experiment.

Two presets fill what is not said: `paper`, the settings of the paper (departures in docs/fidelity.md), and
`best`, the best that was measured (docs/log.md holds what was tried).
"""

import hashlib
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.augment import OPERATIONS
from collabdm.errors import PlanError
from collabdm.experiment import Experiment
from collabdm.images import ImageSet
from collabdm.networks import NetworkSpec
from collabdm.planning import describe, make_plan, plan_for
from collabdm.protocol import ImageSpec, Plan
from collabdm.sources import load
from collabdm.training import RECIPES, Recipe

Settings = dict[str, Any]

PRESETS: dict[str, Settings] = {
    "best": {
        "refinement": {"passes": 4, "matching": {"learning_rate": 10.0, "momentum": 0.5}},
    },
    "paper": {
        "steps": 200,
        "batch": 512,
        "merging": "uniform",
        "images": "float32",
        "local": {"steps": 1000},
        "refinement": {"passes": 1, "matching": {"learning_rate": 10.0, "momentum": 0.5}},
    },
}


def preset_settings(name: str) -> Settings:
    """The settings of a preset."""
    if name not in PRESETS:
        raise PlanError(f"`preset` should be one of {', '.join(PRESETS)}; found {name!r}")
    return PRESETS[name]


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


def batch_of(text: str | None) -> int | str | None:
    """A batch size; `all` stays a word, since None means that nothing was said."""
    if text is None or text == "all":
        return text
    if not text.isdigit() or int(text) < 1:
        raise PlanError(f"`batch` should be a number of at least 1, or all; found {text!r}")
    return int(text)


def sketch_of(width: int | None) -> int | str | None:
    """A sketch width; 0 says that there is none."""
    return "none" if width == 0 else width


def plan_settings(settings: Settings) -> Settings:
    """Words of the command line in the Plan's values: batch all, sketch none."""
    words = {("batch", "all"), ("sketch", "none")}
    return {k: None if isinstance(v, str) and (k, v) in words else v for k, v in settings.items()}


def sites_of(text: str) -> Settings:
    """`5`, or names by commas."""
    if text.isdigit():
        return {"sites": int(text)}
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    return {"sites": len(names), "site_names": names}


def network_settings(text: str) -> Settings:
    """`ConvNet:width=64,depth=2` as settings of a NetworkSpec.

    >>> network_settings("ConvNet:width=64,norm=batch")
    {'name': 'ConvNet', 'width': 64, 'norm': 'batch'}
    """
    name, _, rest = text.partition(":")
    settings: Settings = {"name": name}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise PlanError(f"`network` should be NAME or NAME:key=value,…; found {text!r}")
        settings[key] = int(value) if value.isdigit() else value
    return settings


def networks_of(text: str, plan: Plan) -> tuple[NetworkSpec, ...]:
    """Networks to train: a bare name that the plan uses takes the plan's width and depth."""
    specs = []
    for item in text.split(";" if ":" in text else ","):
        if item == plan.network.name:
            specs.append(plan.network)
            continue
        try:
            specs.append(NetworkSpec(**network_settings(item)))
        except ValidationError as error:
            raise PlanError(f"network {item!r}: {describe(error)}") from error
    return tuple(specs)


def recipe_of(name: str, epochs: int | None) -> Recipe:
    """A recipe by name, with its own number of epochs if one is said."""
    if name not in RECIPES:
        raise PlanError(f"`recipe` should be one of {', '.join(RECIPES)}; found {name!r}")
    if epochs is not None and epochs < 1:
        raise PlanError(f"`epochs` should be at least 1; found {epochs}")
    return RECIPES[name] if epochs is None else RECIPES[name].model_copy(update={"epochs": epochs})


def new_plan(data: str | None, classes: str | None, image_size: str | None, settings: Settings) -> Plan:
    """A plan after a public reference set, or after class names and an image size alone."""
    settings = plan_settings(settings)
    if data is not None:
        if classes is not None or image_size is not None:
            raise PlanError("either `--data`, or `--classes` with `--image-size`, should be given; found both")
        return plan_for(load(data), **settings)
    if classes is None or image_size is None:
        raise PlanError("`--data`, or both `--classes` and `--image-size`, should be given")
    channels, _, side = image_size.partition("x")
    if not (channels.isdigit() and side.isdigit()):
        raise PlanError(f"`--image-size` should be CHANNELSxSIDE, e.g. 3x32; found {image_size!r}")
    half = (0.5,) * int(channels)
    try:
        image = ImageSpec(channels=int(channels), side=int(side), mean=half, std=tuple(h / 2 for h in half))
    except ValidationError as error:
        raise PlanError(f"`--image-size`: {describe(error)}") from error
    return make_plan(tuple(name.strip() for name in classes.split(",")), image, **settings)


def experiment_of(settings: Settings) -> Experiment:
    """An Experiment from settings. Raises PlanError, naming what should change."""
    settings = settings | {"plan": plan_settings(settings.get("plan", {}))}
    try:
        return Experiment(**settings)
    except ValidationError as error:
        raise PlanError(describe(error)) from error


def read_toml(path: Path) -> Settings:
    """The settings in a TOML file. Raises PlanError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PlanError(f"{path} should be a readable TOML file; {error}") from error


def policy_of(text: str) -> tuple[str, ...]:
    """Operations by underscores; `none` for none."""
    names = () if text == "none" else tuple(text.split("_"))
    unknown = sorted(set(names) - set(OPERATIONS))
    if unknown:
        raise PlanError(f"`augment` should be of {'_'.join(OPERATIONS)}; found {', '.join(unknown)}")
    return names


def data_digest(data: ImageSet) -> str:
    """SHA-256 of images and labels: tells a run that is resumed whether its data changed."""
    digest = hashlib.sha256(data.labels.numpy().tobytes())
    for start in range(0, len(data), 4096):
        digest.update(data.images[start : start + 4096].numpy().tobytes())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
