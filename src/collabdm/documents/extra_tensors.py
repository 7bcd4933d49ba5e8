"""Further named parts of a contribution: what a method declares, its bytes, and the check of what came.

Statistics and local images serve distribution matching. A method that sends something else (weights, images
of its own count, steps of training) declares tensors by name, each of one dtype and one shape that follow from
the plan alone. So the most bytes of a file are known before it is read, and a part is checked before it is used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from collabdm.errors import DocumentError

TENSOR_HEADER_BYTES = 256  # of a part in the header of a file: its name, dtype, shape and place


@dataclass(frozen=True)
class TensorSpec:
    """What a part should be."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


DeclaredTensors = dict[str, TensorSpec]


def declared_bytes(declared: DeclaredTensors) -> int:
    """The most bytes that the parts add to a file."""
    return sum(spec.nbytes + len(name) + TENSOR_HEADER_BYTES for name, spec in declared.items())


def check_extra_tensors(declared: DeclaredTensors, parts: Mapping[str, Tensor], name: str) -> None:
    """Refuse parts that are not those declared. Raises DocumentError."""
    if set(parts) != set(declared):
        missing, unknown = sorted(set(declared) - set(parts)), sorted(set(parts) - set(declared))
        raise DocumentError(f"{name}: parts should be {sorted(declared)}; missing {missing}, unknown {unknown}")
    for part, spec in declared.items():
        found = parts[part]
        if found.dtype != spec.dtype or tuple(found.shape) != spec.shape:
            raise DocumentError(
                f"{name}: `parts.{part}` should be {spec.dtype} of shape {spec.shape}; "
                f"found {found.dtype} of {tuple(found.shape)}"
            )
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise DocumentError(f"{name}: `parts.{part}` should be finite; found NaN or infinity")
