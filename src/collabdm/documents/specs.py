"""TODO documents.specs."""

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

Wire = Literal["float16", "int8", "float32"]


Merging = Literal["weighted", "uniform"]


WIRE_BYTES: dict[Wire, int] = {"float16": 2, "int8": 1, "float32": 4}


WIRE_DTYPES: dict[Wire, torch.dtype] = {
    "float16": torch.float16,
    "int8": torch.int8,
    "float32": torch.float32,
}


GROUPS = 4


NetworkName = Literal["ConvNet", "AlexNet", "VGG11", "ResNet18"]


Norm = Literal["instance", "batch", "layer", "group", "none"]


Activation = Literal["relu", "leakyrelu", "sigmoid"]


Pooling = Literal["average", "max", "none"]


#: the fields that mean something to each network, beside its name
FIELDS: dict[NetworkName, frozenset[str]] = {
    "ConvNet": frozenset({"width", "depth", "norm", "activation", "pooling"}),
    "AlexNet": frozenset(),
    "VGG11": frozenset({"norm"}),
    "ResNet18": frozenset({"norm"}),
}


class NetworkSpec(BaseModel):
    """Which network: a name and, where they mean something, its options.

    - `width` (filters), `depth` (blocks), `activation` and `pooling`: of ConvNet only. AlexNet, VGG11 and
      ResNet18 have fixed tables, ReLU and (the first two) max pooling.
    - `norm`: of ConvNet, VGG11 and ResNet18; AlexNet has no normalisation. `layer` takes the mean over all
      channels and pixels, `group` over groups of a quarter of the channels; both scale per channel.

    A field that has no meaning for `name` should be left at its default; pydantic.ValidationError otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: NetworkName = "ConvNet"
    width: int = Field(default=128, ge=8, le=1024)
    depth: int = Field(default=3, ge=1, le=6)
    norm: Norm = "instance"
    activation: Activation = "relu"
    pooling: Pooling = "average"

    @model_validator(mode="after")
    def _means_something(self) -> "NetworkSpec":
        for name, field in type(self).model_fields.items():
            found = getattr(self, name)
            if name not in FIELDS[self.name] | {"name"} and found != field.default:
                raise ValueError(f"`{name}` should be left at {field.default} for {self.name}; found {found}")
        if self.norm == "group" and self.width % GROUPS:
            raise ValueError(f"`width` should be a multiple of {GROUPS} for norm group; found {self.width}")
        return self


Operation = Literal["color", "crop", "cutout", "flip", "scale", "rotate"]


OPERATIONS: tuple[Operation, ...] = ("color", "crop", "cutout", "flip", "scale", "rotate")
