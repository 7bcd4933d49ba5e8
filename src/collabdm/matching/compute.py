"""Where and how a network is evaluated: device, precision, compiled or not.

Compilation (a C++ compiler and some seconds at the start) pays for long work only, so the choice is
made from the number of images to come, which is known beforehand: the same work always takes the
same path, and a repeated document has the same bytes.
"""

import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from collabdm.errors import PlanError
from collabdm.matching.networks import Network

logger = logging.getLogger("collabdm")


Precision = Literal["float32", "bfloat16"]


Forward = Callable[[Network, Tensor], Tensor]  # (network, images) -> embeddings or logits


#: images per pass, without and with gradients. On a CPU what one pass touches should stay in the cache (measured:
#: 256 at once take two to three times as long); a GPU wants many. Images that are smaller than `SMALL` numbers after
#: all convolutions together go in larger passes: starting an operation costs more than what it touches
CHUNKS = {"cpu": (64, 32)}


OTHER_CHUNKS = (1024, 512)


SMALL = 43_000


#: networks that are trained at once. A CPU does best with one after another, compiled (measured:
#: docs/performance.md); a GPU has more units than a small network can fill
NETWORKS_AT_ONCE = {"cpu": 1}


OTHER_NETWORKS_AT_ONCE = 8


SHAPES = 64  # compiled forms of one function that are kept: networks, shapes, with and without gradients


COMPILE_FROM_MULTIPLICATIONS = 3e11  # some 10 s of two cores: about what compiling costs


@dataclass(frozen=True)
class Compute:
    """Device ("cpu", "cuda", …), precision of the networks, and whether they are compiled.

    `compiled=None` decides by the amount of work.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    compiled: bool | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The type that networks compute in; sums are float32 always."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def compiles(self, multiplications: float) -> bool:
        """Whether work of that many multiplications is compiled here."""
        wanted = multiplications >= COMPILE_FROM_MULTIPLICATIONS if self.compiled is None else self.compiled
        return wanted and _can_compile(self.device)

    def autocast(self) -> torch.autocast:
        """What networks run under where they are not compiled."""
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def chunk(self, gradients: bool, activations: int = SMALL) -> int:
        """Images per pass, for a network with so many numbers after its convolutions for each image."""
        return CHUNKS.get(self.device, OTHER_CHUNKS)[gradients] * max(1, SMALL // activations)

    @property
    def networks_at_once(self) -> int:
        """How many small networks are trained together."""
        return NETWORKS_AT_ONCE.get(self.device, OTHER_NETWORKS_AT_ONCE)

    def faster(self, function: Forward, multiplications: float) -> Forward:
        """The function, compiled if that pays. It should be called with few shapes."""
        return _compiled(function) if self.compiles(multiplications) else function


def _logits(network: Network, x: Float32[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    return network(x)


def _logits_bfloat16(network: Network, x: Float32[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    with torch.autocast(x.device.type, torch.bfloat16):
        return network(x)


#: a network's outputs in a precision: what training compiles
LOGITS: dict[Precision, Forward] = {"float32": _logits, "bfloat16": _logits_bfloat16}


def padded_pass(forward: Forward, network: Network, x: Tensor, size: int) -> Tensor:
    """`forward` of at most `size` images, in float32; it sees `size` always, so that it is compiled once."""
    lack = size - len(x)
    filled = torch.cat([x, x[:1].detach().expand(lack, -1, -1, -1)]) if lack else x
    return forward(network, filled)[: len(x)].float()


@cache
def _compiled(function: Forward) -> Forward:
    """One compiled form of a function for the whole process: networks are arguments, so they share it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the compiler's own imports
        from torch._dynamo import config  # here, since this import takes seconds

        compiled = torch.compile(function, dynamic=False)

    def run(network: Network, x: Tensor) -> Tensor:
        with warnings.catch_warnings(), config.patch(recompile_limit=SHAPES):
            warnings.simplefilter("ignore", DeprecationWarning)
            return compiled(network, x)

    return run


@cache
def _can_compile(device: str) -> bool:
    if device == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        logger.warning("no C++ compiler found: networks run uncompiled, some two to four times slower")
        return False
    return True


def choose_compute(device: str = "auto", precision: str = "auto", compiled: bool | None = None) -> Compute:
    """A Compute from what a person says: `auto` takes a GPU if there is one, and bfloat16 where it is native."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise PlanError(f"`device` should be one that this machine has; found {device!r} ({error})") from error
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    if precision not in ("float32", "bfloat16"):
        raise PlanError(f"`precision` should be float32, bfloat16 or auto; found {precision!r}")
    return Compute(device, precision, compiled)  # type: ignore[arg-type]


def _multiplies_bfloat16(device: str) -> bool:
    """Whether the device multiplies matrices in bfloat16 natively: a GPU of these years, a CPU with AMX."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device == "cpu" and bool(supported())
