"""The named choices in a Plan: network, augmentation, and the encoding and merging of means.

This module contains only names and ranges; `collabdm.matching` implements them.
"""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field, model_validator

from collabdm.documents.frozen_model import ExtendedModel

Wire = Literal["float16", "int8", "float32"]  # the encoding of class means
#: weight sites by their number of images, or equally; or bound the effect of a single site
Merging = Literal["weighted", "uniform", "median", "trimmed"]

ROBUST_MERGING: tuple[Merging, ...] = ("median", "trimmed")

WIRE_BYTES: dict[Wire, int] = {"float16": 2, "int8": 1, "float32": 4}

WIRE_DTYPES: dict[Wire, torch.dtype] = {
    "float16": torch.float16,
    "int8": torch.int8,
    "float32": torch.float32,
}

Operation = Literal["color", "crop", "cutout", "flip", "scale", "rotate"]
OPERATIONS: tuple[Operation, ...] = ("color", "crop", "cutout", "flip", "scale", "rotate")

NetworkName = Literal["ConvNet", "AlexNet", "VGG11", "ResNet18", "MLP", "Thresholds"]
ROW_NETWORKS: tuple[NetworkName, ...] = ("MLP", "Thresholds")  # that take rows of a table
Norm = Literal["instance", "batch", "layer", "group", "none"]
Activation = Literal["relu", "leakyrelu", "sigmoid"]
Pooling = Literal["average", "max", "none"]

GROUPS = 4  # groups of channels, with norm `group`

#: the options that apply to each network
FIELDS: dict[NetworkName, frozenset[str]] = {
    "ConvNet": frozenset({"width", "depth", "norm", "activation", "pooling"}),
    "AlexNet": frozenset(),
    "VGG11": frozenset({"norm"}),
    "ResNet18": frozenset({"norm"}),
    "MLP": frozenset({"width", "depth", "norm", "activation"}),
    "Thresholds": frozenset({"width", "columns"}),
}


class NetworkSpec(ExtendedModel):
    """A network: its name, and the options that apply to it.

    - `width` (filters), `depth` (blocks), `activation` and `pooling` apply only to ConvNet.
      AlexNet, VGG11 and ResNet18 have fixed layers and ReLU; AlexNet and VGG11 use max pooling.
    - `norm` applies to ConvNet, VGG11 and ResNet18; AlexNet has no normalisation. `layer`
      normalises over all channels and pixels, `group` over each quarter of the channels; both scale
      each channel separately.
    - MLP has `depth` hidden layers of `width` units. Its `norm` is `layer` unless it is set, and
      never `instance`, because each unit has a single value.
    - Thresholds, for rows, has one layer of `width` units; `columns` are the numbers of encoded
      values of the columns. It computes embeddings only, and is not trained.

    An option that does not apply should be left at its default; otherwise pydantic raises a
    ValidationError.
    """

    model_config = ConfigDict(strict=True)

    extensions: ClassVar[tuple[str, ...]] = ("columns",)

    name: NetworkName = "ConvNet"
    width: int = Field(default=128, ge=8, le=1024)
    depth: int = Field(default=3, ge=1, le=6)
    norm: Norm = "instance"
    activation: Activation = "relu"
    pooling: Pooling = "average"
    columns: tuple[Annotated[int, Field(ge=1, le=2**16)], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fields_suit_rows(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("name") == "MLP":
            return {"norm": "layer"} | settings
        if isinstance(settings, dict) and isinstance(settings.get("columns"), list):
            return settings | {"columns": tuple(settings["columns"])}  # JSON has no tuples
        return settings

    @model_validator(mode="after")
    def _options_apply(self) -> "NetworkSpec":
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name not in FIELDS[self.name] | {"name"} and value != field.default:
                raise ValueError(
                    f"`{name}` should be left at {field.default} for {self.name}; found {value}"
                )

        if self.name == "Thresholds" and not self.columns:
            raise ValueError("`columns` should be set for Thresholds; found none")
        if self.name == "MLP" and self.norm == "instance":
            raise ValueError("`norm` should be layer, group or none for MLP; found instance")

        if self.norm == "group" and self.width % GROUPS:
            raise ValueError(
                f"`width` should be a multiple of {GROUPS} for norm group; found {self.width}"
            )

        return self
