"""The extra tensors of a document: declare them by name, and check them before use.

Distribution matching uses statistics and local images. A method that sends anything else (weights,
training steps, its own number of images) declares extra tensors, whose dtypes and shapes follow
from the Plan alone. The size limit of a file is therefore known before the file is read, and every
tensor is checked before it is used. A contribution's file lists them under `parts.NAME`.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from collabdm.errors import DocumentError

EXTRA_PREFIX = "parts."  # precedes the names in a contribution's file
TENSOR_HEADER_BYTES = 256  # per tensor in the header of a file: name, dtype, shape and offsets


@dataclass(frozen=True)
class TensorSpec:
    """The required dtype and shape of a tensor."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The number of bytes of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


DeclaredTensors = dict[str, TensorSpec]


def declared_bytes(declared: DeclaredTensors) -> int:
    """Return an upper bound on the bytes that declared tensors add to a file."""
    return sum(spec.nbytes + len(name) + TENSOR_HEADER_BYTES for name, spec in declared.items())


def check_names(where: str, tensors: Collection[str], expected: Collection[str]) -> None:
    """Check that a document contains exactly the expected tensors.

    Args:
        where: The name of the document, for the error.
        tensors: The names of its tensors.
        expected: The names that it should contain.

    Raises:
        DocumentError: A tensor is missing or unknown.
    """
    missing, unknown = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or unknown:
        raise DocumentError(
            f"{where}: tensors should be {sorted(expected)}; missing {missing}, unknown {unknown}"
        )


def check_extra_tensors(
    declared: DeclaredTensors, tensors: Mapping[str, Tensor], where: str, prefix: str = ""
) -> None:
    """Check that a document has exactly the declared tensors, with finite values.

    Args:
        declared: The required dtype and shape of each tensor, by name.
        tensors: The tensors found, by name.
        where: The name of the document, for the error.
        prefix: The text before every name in the error, such as `EXTRA_PREFIX`.

    Raises:
        DocumentError: A tensor is missing or unknown, has the wrong dtype or shape, or is not
            finite.
    """
    check_names(where, [prefix + name for name in tensors], [prefix + name for name in declared])

    for name, spec in declared.items():
        tensor = tensors[name]

        if tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
            raise DocumentError(
                f"{where}: `{prefix}{name}` should be {spec.dtype} of shape {spec.shape}; "
                f"found {tensor.dtype} of shape {tuple(tensor.shape)}"
            )

        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DocumentError(
                f"{where}: `{prefix}{name}` should be finite; found NaN or infinity"
            )
