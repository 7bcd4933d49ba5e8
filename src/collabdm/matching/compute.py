"""Choose the device, the precision and the compilation of networks.

Compiling needs a C++ compiler and some seconds, so it saves time only if the work is long. The
choice depends only on the number of multiplications, which is known in advance: the same work
always takes the same path, so a document that is computed again has the same bytes.
"""

import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from collabdm.errors import PlanError
from collabdm.matching.compiled_code import use_private_folder
from collabdm.matching.networks import Network

Precision = Literal["float32", "bfloat16"]
Forward = Callable[[Network, Tensor], Tensor]  # (network, images) -> embeddings or logits

#: The most images in one pass through a network, without and with gradients. On a CPU the values of
#: one pass should fit into the cache (measured: 256 images at once take two to three times as
#: long); a GPU needs many images. Passes are larger if all convolutions together have fewer than
#: `FEW_ACTIVATIONS` output values per image, because starting an operation then costs more than its
#: arithmetic.
IMAGES_PER_PASS = {"cpu": (64, 32)}
IMAGES_PER_PASS_ON_GPU = (1024, 512)
FEW_ACTIVATIONS = 43_000

#: The number of networks that are trained together. On a CPU it is fastest to train compiled
#: networks one after another (measured: docs/performance.md); a small network cannot occupy all
#: units of a GPU.
NETWORKS_AT_ONCE = {"cpu": 1}
NETWORKS_AT_ONCE_ON_GPU = 8

COMPILE_FROM_MULTIPLICATIONS = 3e11  # about 10 s on two cores, roughly the cost of compiling
COMPILED_FORMS = 64  # per function: one per network and shape, with and without gradients

logger = logging.getLogger("collabdm")


@dataclass(frozen=True)
class Compute:
    """Where and how networks run.

    Attributes:
        device: "cpu", "cuda", "cuda:1", …
        precision: the precision of the networks; sums are always float32.
        compiled: whether networks are compiled; None lets the amount of work decide.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    compiled: bool | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The precision as a torch dtype."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32

    def compiles(self, multiplications: float) -> bool:
        """Return whether networks are compiled here, for work with this many multiplications."""
        pays = multiplications >= COMPILE_FROM_MULTIPLICATIONS
        wanted = pays if self.compiled is None else self.compiled
        return wanted and _can_compile(self.device)

    def faster(self, function: Forward, multiplications: float) -> Forward:
        """Compile a function if that saves time; it should be called with few different shapes."""
        return _compiled(function) if self.compiles(multiplications) else function

    def autocast(self) -> torch.autocast:
        """Return the context manager under which uncompiled networks run in this precision."""
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def images_per_pass(self, gradients: bool, activations: int = FEW_ACTIVATIONS) -> int:
        """Return the largest number of images in one pass.

        Args:
            gradients: whether the pass keeps values for gradients.
            activations: the number of output values of all convolutions, per image.

        Returns:
            The number of images.
        """
        images = IMAGES_PER_PASS.get(self.device, IMAGES_PER_PASS_ON_GPU)[gradients]
        return images * max(1, FEW_ACTIVATIONS // activations)

    @property
    def networks_at_once(self) -> int:
        """The number of small networks that are trained together."""
        return NETWORKS_AT_ONCE.get(self.device, NETWORKS_AT_ONCE_ON_GPU)


def choose_compute(
    device: str = "auto", precision: str = "auto", compiled: bool | None = None
) -> Compute:
    """Create a Compute from the options of a command.

    Args:
        device: a device; `auto` chooses a GPU if there is one.
        precision: float32 or bfloat16; `auto` chooses bfloat16 if the device supports it natively.
        compiled: whether networks are compiled; None lets the amount of work decide.

    Returns:
        The Compute.

    Raises:
        PlanError: this machine does not have the device, or the precision is unknown.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise PlanError(
            f"`device` should be one that this machine has; found {device!r} ({error})"
        ) from error

    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    if precision not in ("float32", "bfloat16"):
        raise PlanError(f"`precision` should be float32, bfloat16 or auto; found {precision!r}")

    return Compute(device, precision, compiled)  # type: ignore[arg-type]


def padded_pass(forward: Forward, network: Network, x: Tensor, size: int) -> Tensor:
    """Run `forward` on at most `size` images, padded to `size` so that one compiled form suffices.

    Args:
        forward: the function to run.
        network: its network.
        x: the images, at least one.
        size: the number of images that `forward` receives.

    Returns:
        One row per image, float32.
    """
    lack = size - len(x)
    padded = torch.cat([x, x[:1].detach().expand(lack, -1, -1, -1)]) if lack else x
    return forward(network, padded)[: len(x)].float()


def _logits(network: Network, x: Float32[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    return network(x)


def _logits_bfloat16(network: Network, x: Float32[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    with torch.autocast(x.device.type, torch.bfloat16):
        return network(x)


#: The function that computes logits in each precision; training compiles these functions.
LOGITS: dict[Precision, Forward] = {"float32": _logits, "bfloat16": _logits_bfloat16}


@cache
def _compiled(function: Forward) -> Forward:
    """Compile a function once per process; networks are arguments, so they share the result."""
    use_private_folder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from the compiler's imports
        from torch._dynamo import config  # imported here because it takes seconds

        compiled = torch.compile(function, dynamic=False)

    def run(network: Network, x: Tensor) -> Tensor:
        with warnings.catch_warnings(), config.patch(recompile_limit=COMPILED_FORMS):
            warnings.simplefilter("ignore", DeprecationWarning)
            return compiled(network, x)

    return run


@cache
def _can_compile(device: str) -> bool:
    """Return whether code for the device can be compiled on this machine."""
    if device == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        logger.warning("no C++ compiler found: networks run uncompiled, two to four times slower")
        return False
    return True


def bfloat16_pays(amx: bool, avx512_bf16: bool, vendor: str) -> bool:
    """Return whether a CPU computes networks faster in bfloat16 than in float32.

    It does with AMX. Instructions for vectors (AVX512-BF16) make it twice as fast on AMD's
    processors, but slower on Intel's (docs/performance.md). The choice follows from the processor,
    and not from a measurement, so that the same machine always computes the same bytes.

    Args:
        amx: whether the CPU has AMX.
        avx512_bf16: whether it has AVX512-BF16.
        vendor: the vendor's identifier, as the CPU reports it.
    """
    return amx or (avx512_bf16 and vendor == "AuthenticAMD")


def _multiplies_bfloat16(device: str) -> bool:
    """Return whether bfloat16 is the faster precision of a device."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()

    amx, avx512 = (
        bool(getattr(torch.cpu, f"_is_{name}_supported", bool)())  # absent in some builds of torch
        for name in ("amx_tile", "avx512_bf16")
    )
    return device == "cpu" and bfloat16_pays(amx, avx512, _cpu_vendor())


@cache
def _cpu_vendor() -> str:
    """Return the identifier of the processor's vendor; empty where Linux does not report one."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    values = (line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id"))
    return next(values, "")
