"""The only source of randomness: a counter-based generator whose stream never changes.

Server and sites exchange seeds, never networks, so every random number of the protocol is a
function of the Plan alone. A stream is identified by (seed, purpose, step):

    words   = Philox4x64-10 with key (seed, purpose * 2^32 + step), counters 1, 2, 3, …;
              each counter yields four words of 64 bits
    uniform = (h >> 8) * 2^-24      for each 32-bit half h of a word, the low half first
    sign    = 2 * bit - 1           for each bit of a word, the lowest first

Every call consumes whole words; unused bits of the last one are dropped. Uniforms are exact in
float32, so weights and sketches agree bit for bit on any machine. NumPy guarantees the raw stream
of its bit generators (NEP 19); golden values in the tests verify it.

Reference: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

SEED_LIMIT = 2**63
STEP_LIMIT = 2**32


class Purpose(IntEnum):
    """What a stream is used for. The numbers are part of the protocol and are never reused."""

    WEIGHTS = 1  #: weights of the embedding network of a step
    AUGMENT = 2  #: augmentation parameters of a step
    SKETCH = 3  #: signs of the sketch of a step
    PROBE = 4  #: the probe image
    PARTICIPATION = 5  #: the sites that take part in a step (Z_t)
    SERVER = 6  #: the server's draws: initial images, batches of synthetic images
    LOCAL_WEIGHTS = 16  #: weights of the network of a step of the local distillation
    LOCAL_AUGMENT = 17  #: augmentation of a step of the local distillation
    LOCAL_BATCH = 18  #: real images of a step of the local distillation
    LOCAL_START = 19  #: the initial images of the local distillation
    BATCH = 20  #: real images of a step of the statistics
    PARTITION = 32  #: simulated split of one data set over sites
    NETWORK = 33  #: initial weights of a network that is trained
    TRAINING = 34  #: order of images and augmentation in training
    BASELINE = 35  #: random draws of a compared method, under a seed derived for it
    DATA = 36  #: subsets of a data set
    PUBLIC = 37  #: public images, which a program draws


@dataclass
class Stream:
    """A sequence of raw 64-bit words, consumed from the front.

    >>> first, again = (Stream.of(7, Purpose.WEIGHTS).uniforms(2) for _ in range(2))
    >>> first.tolist() == again.tolist()
    True
    """

    key: tuple[int, int]
    _philox: np.random.Philox = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._philox = np.random.Philox(key=np.array(self.key, dtype=np.uint64), counter=0)

    @classmethod
    def of(cls, seed: int, purpose: Purpose, step: int = 0) -> "Stream":
        """Return a stream, positioned at its beginning.

        Args:
            seed: A number in 0 .. 2^63 - 1, often the seed of a Plan.
            purpose: What the numbers are used for.
            step: A number in 0 .. 2^32 - 1, for most purposes a step of the round.

        Raises:
            ValueError: Seed or step is out of range.
        """
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"`seed` should be in 0 .. 2^63 - 1; found {seed}")
        if not 0 <= step < STEP_LIMIT:
            raise ValueError(f"`step` should be in 0 .. 2^32 - 1; found {step}")

        return cls((seed, (int(purpose) << 32) + step))

    @property
    def position(self) -> int:
        """The number of words drawn so far."""
        state = self._philox.state
        return 4 * int(state["state"]["counter"][0]) - (4 - int(state["buffer_pos"]))

    def skip_to(self, position: int) -> None:
        """Move a stream at its beginning to a position, as if so many words had been drawn.

        >>> first, other = (Stream.of(7, Purpose.WEIGHTS) for _ in range(2))
        >>> drawn = first.words(5)
        >>> other.skip_to(first.position)
        >>> first.words(3).tolist() == other.words(3).tolist()
        True
        """
        self._philox.advance(position // 4)
        self.words(position % 4)

    def words(self, count: int) -> np.ndarray:
        """Return the next `count` raw words, as uint64."""
        return self._philox.random_raw(count)

    def uniforms(self, *shape: int) -> Float32[Tensor, "..."]:
        """Draw uniforms in [0, 1), multiples of 2^-24, as float32 of the given shape."""
        count = math.prod(shape)
        halves = self.words((count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
        values = (halves >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
        return torch.from_numpy(values).reshape(shape)

    def signs(self, *shape: int) -> Float32[Tensor, "..."]:
        """Draw independent signs, -1 or +1 equally likely, as float32 of the given shape."""
        count = math.prod(shape)
        octets = self.words((count + 63) // 64).astype("<u8", copy=False).view(np.uint8)
        bits = np.unpackbits(octets, count=count, bitorder="little")
        return torch.from_numpy(bits.astype(np.float32) * 2 - 1).reshape(shape)

    def normals(self, *shape: int) -> Float32[Tensor, "..."]:
        """Draw standard normals by the Box-Muller transform, as float32 of the given shape.

        Let n be half the count, rounded up. The uniforms u_1 .. u_n, then v_1 .. v_n, give
        sqrt(-2 log(1 - u_i)) cos(2 pi v_i) for all i, then the same with sin instead of cos. The
        computation is in double precision, so machines differ in the last bit at most.
        """
        count = math.prod(shape)
        u, v = self.uniforms(2, (count + 1) // 2).double()

        radius, angle = (-2 * torch.log1p(-u)).sqrt(), 2 * math.pi * v
        values = torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]
        return values.float().reshape(shape)

    def permutation(self, n: int) -> Int64[Tensor, " n"]:
        """Draw a permutation of 0 .. n-1, the one that sorts the next n words (a stable sort)."""
        return torch.from_numpy(np.argsort(self.words(n), kind="stable").astype(np.int64))

    def integers(self, bound: int, *shape: int) -> Int64[Tensor, "..."]:
        """Draw integers in 0 .. bound-1.

        Each is the high 64 bits of word * bound (bias below bound * 2^-64).
        """
        words = self.words(math.prod(shape)).tolist()
        values = [(word * bound) >> 64 for word in words]
        return torch.tensor(values, dtype=torch.int64).reshape(shape)


def derive(seed: int, *names: str | int) -> int:
    """Derive a seed for a named use, such as one site's private draws.

    The result is the first 63 bits of a SHA-256. The hashed text is the decimal seed and the names,
    joined by U+001F.

    >>> derive(0, "site", "a") == derive(0, "site", "a") != derive(0, "site", "b")
    True
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def participants(seed: int, step: int, sites: Sequence[str], fraction: float) -> frozenset[str]:
    """Draw Z_t, the sites that take part in a step (Algorithm 1 of the paper, line 4).

    Args:
        seed: The Plan's seed.
        step: The step t.
        sites: The names of all K sites, in any order.
        fraction: The share of the sites that takes part, in 0 .. 1.

    Returns:
        The names of `round(fraction * K)` sites, at least one.
    """
    ordered = sorted(sites)
    size = max(1, round(fraction * len(ordered)))

    order = Stream.of(seed, Purpose.PARTICIPATION, step).permutation(len(ordered))
    return frozenset(ordered[i] for i in order[:size].tolist())
