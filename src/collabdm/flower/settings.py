"""Parse and check the settings of a node or a run, which Flower passes as KEY=VALUE pairs.

    flower-supernode --node-config 'site="north" data="/data/north" policy="/etc/site.toml"'
    flwr run APP --run-config 'plan="/srv/plan.json" folder="/srv/round"'

Flower accepts any key with any text, number or Boolean. Here every key must be known and every
value must have the right type: otherwise a misspelt `policy` would leave a site without its policy.
"""

import csv
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from collabdm.documents.frozen_model import SITE_NAME, SITE_NAME_RULE, FrozenModel
from collabdm.errors import CollabDMError, PlanError, did_you_mean
from collabdm.matching.compute import Compute, choose_compute
from collabdm.matching.threads import set_threads

logger = logging.getLogger("flwr.collabdm")


class SettingsError(CollabDMError):
    """A node or a run is configured wrongly."""


# --- values ------------------------------------------------------------------------------------


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError('should be a text in quotes, KEY="VALUE"')
    return value


def _site_name(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(SITE_NAME, value):
        raise ValueError(f'{SITE_NAME_RULE}, in quotes, site="NAME"')
    return value


def _absolute_path(value: object) -> Path:
    if not isinstance(value, str) or not Path(value).is_absolute():
        raise ValueError("should be an absolute path")
    return Path(value)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("should be true or false")


def _whole_number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    raise ValueError("should be a whole number, 0 or more")


def _nodes(value: object) -> dict[str, int]:
    """Parse the node of each site from SITE=NODE,SITE=NODE. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("should be SITE=NODE,SITE=NODE, in quotes")

    nodes: dict[str, int] = {}
    for pair in filter(None, (pair.strip() for pair in value.split(","))):
        match = re.fullmatch(rf"({SITE_NAME})=([0-9]{{1,20}})", pair)
        if match is None or match[1] in nodes:
            raise ValueError(f"should be SITE=NODE,SITE=NODE, each site once, not {pair!r}")
        nodes[match[1]] = int(match[2])

    if len(set(nodes.values())) < len(nodes):
        raise ValueError("should name each node once")
    return nodes


def _names(value: object) -> tuple[str, ...]:
    """Parse names separated by commas; those with commas are quoted. Raises ValueError."""
    (names,) = csv.reader([_text(value)], skipinitialspace=True)
    return tuple(filter(None, (name.strip() for name in names)))


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_site_name)]
AnyPath = Annotated[Path, BeforeValidator(lambda value: Path(_text(value)))]
AbsolutePath = Annotated[Path, BeforeValidator(_absolute_path)]
Flag = Annotated[bool, BeforeValidator(_flag)]
WholeNumber = Annotated[int, BeforeValidator(_whole_number)]
ClassList = Annotated[tuple[str, ...], BeforeValidator(_names)]
Nodes = Annotated[dict[str, int], BeforeValidator(_nodes)]


# --- settings ----------------------------------------------------------------------------------


class ComputeSettings(FrozenModel):
    """The device, precision and threads of a program; `threads=0` uses the free cores.

    Keys are written with hyphens.
    """

    model_config = ConfigDict(alias_generator=lambda name: name.replace("_", "-"))

    device: Text = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: WholeNumber = 0

    def choose(self) -> Compute:
        """Choose device and precision, and set the number of threads of this process.

        Raises:
            SettingsError: this machine does not have the device.
        """
        threads = set_threads(self.threads)
        try:
            compute = choose_compute(self.device, self.precision)
        except PlanError as error:
            raise SettingsError(str(error)) from error
        logger.info("%s, %s, %s", compute.device, compute.precision, threads)
        return compute


class NodeSettings(ComputeSettings):
    """A site's own settings, from `--node-config` of its node; messages cannot change them.

    Attributes:
        site: the site's name.
        data: the location of its data, as for `collabdm contribute --data`.
        policy: the file of its policy; without one, the defaults apply, which allow no real images.
        folder: where contributions are stored; a repeated plan is answered from there.
        rows: COLUMN=VALUE; use only these rows of a table of flows.
        resize: whether to convert images to the plan's size and channels.
        label_column: the column of the labels; without one, it is found by its usual names.
        image_column: the column of the images; without one, it is found by its usual names.
        class_names: the names of the label numbers, as for `--class-names`.
        skip_unreadable: whether to leave out pictures that cannot be read.
        without: classes that this site leaves out, besides those of its policy.
        key: the file of its private key for masks; default: the one in its private folder.
        unmask: whether the node answers that sites are missing; if not, the operator does, by file.
        partition_id: the number of the node, from 0; set by Flower's simulation engine.
        num_partitions: the number of nodes; set by Flower's simulation engine.
    """

    site: Name | None = None
    data: Text | None = None
    policy: AnyPath | None = None
    folder: AnyPath | None = None
    rows: Text | None = None
    resize: Flag = False
    label_column: Text | None = None
    image_column: Text | None = None
    class_names: Text | None = None
    skip_unreadable: Flag = False
    without: ClassList = ()
    key: AnyPath | None = None
    unmask: Flag = False
    partition_id: WholeNumber | None = None
    num_partitions: WholeNumber | None = None

    @model_validator(mode="after")
    def _has_a_name(self) -> "NodeSettings":
        if self.site is None and self.partition_id is None:
            raise ValueError('`site` of the node should be its name; found none: add site="NAME"')
        return self

    @property
    def name(self) -> str:
        """The site's name; site-1, site-2, … in Flower's simulation."""
        return f"site-{(self.partition_id or 0) + 1}" if self.site is None else self.site


class RunSettings(ComputeSettings):
    """The coordinator's settings of a round, from `--run-config`.

    Attributes:
        plan: the file of the plan.
        folder: the folder of the round; if it exists, the round is resumed.
        distill: whether to compute the outcome; if not, the files are left for `collabdm distill`.
        nodes: the node of each site, SITE=NODE,…; a site without a node may answer from any node.
        allow_missing: whether to accept a round in which a class is missing at every site.
    """

    plan: AbsolutePath
    folder: AbsolutePath
    distill: Flag = True
    nodes: Nodes = Field(default_factory=dict)
    allow_missing: Flag = False


Settings = TypeVar("Settings", bound=ComputeSettings)


def parse_settings(model: type[Settings], config: Mapping[str, Any], owner: str) -> Settings:
    """Parse settings from Flower's KEY=VALUE pairs.

    Args:
        model: the model of the settings.
        config: the pairs.
        owner: "node" or "run", for messages.

    Returns:
        The settings.

    Raises:
        SettingsError: a key is unknown or a value does not fit; the message lists every problem.
    """
    try:
        return model.model_validate(dict(config))
    except ValidationError as error:
        keys = [field.alias or name for name, field in model.model_fields.items()]
        lines = [_message(item, keys, owner) for item in error.errors()]
        raise SettingsError("\n".join(lines)) from error


def claimed_name(config: Mapping[str, Any]) -> str:
    """Read the site's name from a node's configuration, even if other settings are wrong.

    The result is empty if there is no valid name.
    """
    naming = {key: config[key] for key in ("site", "partition-id") if key in config}
    try:
        return parse_settings(NodeSettings, naming, "node").name
    except SettingsError:
        return ""


def _message(item: ErrorDetails, keys: list[str], owner: str) -> str:
    """Return the message about one key, from one entry of `ValidationError.errors()`."""
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not item["loc"]:
        return message

    key = str(item["loc"][0])
    if item["type"] == "extra_forbidden":
        nearest = did_you_mean(key.lower().replace("_", "-"), keys)
        advice = nearest or f": choose from {', '.join(keys)}"
        return f"`{key}` is not a setting of the {owner}{advice}"
    if item["type"] == "missing":
        return f"`{key}` of the {owner} should be given; found none"
    return f"`{key}` of the {owner} {message}; found {item['input']!r:.80}"
