"""Split one data set over K sites, to simulate sites with their own data.

    p_y ~ Dirichlet(β, ..., β)                        draws K shares for each class y
    site k gets, of the n_y shuffled images of class y, those numbered
             ⌊n_y (p_y1 + ... + p_y,k-1)⌋ .. ⌊n_y (p_y1 + ... + p_yk)⌋ - 1

The shares are normalised gamma variates, drawn with the inverse distribution function:

    P(β, g_k) = u_k,    p_yk = g_k / Σ g

where the u_k are uniform and P is the regularised lower incomplete gamma function.

The code computes logarithms, because for small β most g_k are below the smallest float; there
P(β, g) = g^β / Γ(β + 1), so log g = (log u + log Γ(β + 1)) / β.

A small β gives skewed sites, some of which lack classes or have no images at all. With
`class_floor`, every site first gets that many images of every class, and only the rest is split.
The authors' program does this; it is an easier setting than the split that the paper describes.

References: M. Yurochkin et al., "Bayesian nonparametric federated learning of neural networks",
ICML 2019 (the split); R. Holland et al., "One-shot collaborative data distillation", 2024,
section 4 (its use here).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.regular_file import read_regular
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.images import ImageSet
from collabdm.seeds import Purpose, Stream

BETA_RANGE = (1e-6, 1e6)
SMALL = 1e-100  # below it, P(β, g) equals the first term of its series to all digits
MOST_SHOWN = 8  # the most positions or names in an error

Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Site(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    index: list[Count]


class _Document(BaseModel):
    """A partition as JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["collabdm-partition"]
    version: Literal[1]
    size: Count
    sites: list[_Site]


@dataclass(frozen=True, eq=False)
class Partition:
    """An assignment of the images of a data set to sites.

    `names` are the sites, `index` the ascending positions of their images in the data set, and
    `size` the number of images in that set. An image belongs to at most one site. Raises DataError
    or PlanError if the parts are inconsistent.
    """

    names: tuple[str, ...]
    index: tuple[Int64[Tensor, " _"], ...]
    size: int

    def __post_init__(self) -> None:
        if len(self.names) != len(self.index):
            raise DataError(
                f"there should be one index per site; found {len(self.names)} sites "
                f"and {len(self.index)} indices"
            )
        _check_names(self.names)

        positions = torch.cat(self.index)
        if len(positions):
            self._check_positions(positions)

    def _check_positions(self, positions: Int64[Tensor, " _"]) -> None:
        least, most = int(positions.min()), int(positions.max())
        if not 0 <= least <= most < self.size:
            raise DataError(f"positions should be in 0 .. {self.size - 1}; found {least} .. {most}")

        values, counts = positions.unique(return_counts=True)
        repeated = values[counts > 1]
        if len(repeated):
            raise DataError(
                "an image should belong to one site; found more than once: "
                f"{repeated[:MOST_SHOWN].tolist()} ({len(repeated)} in all)"
            )

    def sites(self, data: ImageSet) -> dict[str, ImageSet]:
        """Return the images of each site, by name.

        Raises DataError if `data` has a different size.
        """
        self._check_size(data)
        pairs = zip(self.names, self.index, strict=True)
        return {name: data.subset(index) for name, index in pairs}

    def counts(self, data: ImageSet) -> Int64[Tensor, "K classes"]:
        """Count the images of each class at each site.

        Raises DataError if `data` has a different size.
        """
        self._check_size(data)
        classes = len(data.classes)
        labels = (data.labels[index] for index in self.index)
        return torch.stack([torch.bincount(own, minlength=classes) for own in labels])

    def save(self, path: Path) -> None:
        """Write the partition as JSON, so that `load` can read it. Raises OutputError."""
        pairs = zip(self.names, self.index, strict=True)
        sites = [_Site(name=name, index=index.tolist()) for name, index in pairs]
        document = _Document(format="collabdm-partition", version=1, size=self.size, sites=sites)
        atomic_write(path, f"{document.model_dump_json()}\n".encode())

    @classmethod
    def load(cls, path: Path) -> "Partition":
        """Read a file that `save` wrote.

        Raises DocumentError if it is not a partition, or assigns an image to two sites.
        """
        try:
            document = _Document.model_validate_json(read_regular(path))
            index = tuple(torch.tensor(site.index, dtype=torch.int64) for site in document.sites)
            return cls(tuple(site.name for site in document.sites), index, document.size)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the text"
            raise DocumentError(
                f"`{path}` should be a saved partition; at {place}: {first['msg']}"
            ) from error
        except (OSError, DataError, PlanError) as error:
            raise DocumentError(f"`{path}` should be a saved partition; {error}") from error

    def _check_size(self, data: ImageSet) -> None:
        if len(data) != self.size:
            raise DataError(
                f"the partition should be used with a set of {self.size} images; "
                f"found one of {len(data)}"
            )


def dirichlet(
    labels: Int64[Tensor, " n"],
    classes: int,
    sites: int | Sequence[str],
    beta: float,
    seed: int,
    class_floor: int = 0,
) -> Partition:
    """Split every class over the sites by shares from a Dirichlet distribution.

    Args:
        labels: The class number of each image.
        classes: The number of classes.
        sites: The number K of sites, or their names.
        beta: The concentration β, in 1e-6 .. 1e6; small values give skewed sites.
        seed: The seed of the draws.
        class_floor: The number of images of every class that each site gets before the rest is
            split.

    Returns:
        A partition in which every image belongs to one site.

    Raises:
        PlanError: A setting is out of range, or a class has fewer than K · class_floor images.
        DataError: A label is not in 0 .. classes - 1.
    """
    names = site_names(sites)
    _check_dirichlet(labels, classes, beta, class_floor, len(names))

    dealt: list[list[Tensor]] = [[] for _ in names]
    for y in range(classes):
        stream = Stream.of(seed, Purpose.PARTITION, y)
        shares = dirichlet_shares(stream, len(names), beta)

        members = torch.nonzero(labels == y).flatten()
        members = members[stream.permutation(len(members))]
        for own, part in zip(dealt, _deal(members, shares, class_floor), strict=True):
            own.append(part)

    index = tuple(torch.cat(parts).sort().values for parts in dealt)
    return Partition(names, index, len(labels))


def dirichlet_shares(stream: Stream, K: int, beta: float) -> Float64[np.ndarray, " K"]:
    """Draw shares from a symmetric Dirichlet distribution.

    Args:
        stream: The random stream, from which K words are drawn.
        K: The number of shares.
        beta: The concentration, in 1e-6 .. 1e6.

    Returns:
        K shares, each 0 or more, that sum to 1.
    """
    from scipy.special import gammaincinv, gammaln  # takes a third of a second to import

    words = (stream.words(K) >> np.uint64(12)).astype(np.float64)
    uniforms = (words + 0.5) * 2.0**-52  # never 0, never 1

    gammas = gammaincinv(beta, uniforms)
    tail = (np.log(uniforms) + gammaln(beta + 1)) / beta
    logs = np.where(gammas > SMALL, np.log(np.maximum(gammas, SMALL)), tail)

    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _deal(
    members: Int64[Tensor, " n_y"], shares: Float64[np.ndarray, " K"], class_floor: int
) -> list[Int64[Tensor, " _"]]:
    """Deal the images of one class: first the floor to every site, then the rest by shares."""
    K = len(shares)
    floor, rest = members[: K * class_floor].view(K, class_floor), members[K * class_floor :]

    cuts = np.floor(np.cumsum(shares)[:-1] * len(rest)).astype(np.int64).clip(0, len(rest))
    parts = torch.tensor_split(rest, cuts.tolist())
    return [torch.cat([first, more]) for first, more in zip(floor, parts, strict=True)]


def _check_dirichlet(
    labels: Int64[Tensor, " n"], classes: int, beta: float, class_floor: int, K: int
) -> None:
    if not BETA_RANGE[0] <= beta <= BETA_RANGE[1]:
        raise PlanError(f"`beta` should be in {BETA_RANGE[0]} .. {BETA_RANGE[1]:.0f}; found {beta}")
    if class_floor < 0 or classes < 1:
        raise PlanError(
            "`class_floor` should be 0 or more and `classes` 1 or more; "
            f"found {class_floor} and {classes}"
        )
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels should be in 0 .. {classes - 1}; "
            f"found {int(labels.min())} .. {int(labels.max())}"
        )

    counts = torch.bincount(labels, minlength=classes)
    if class_floor and int(counts.min()) < K * class_floor:
        y = int(counts.argmin())
        raise PlanError(
            f"class {y} should have at least {K} sites x {class_floor} (`class_floor`) = "
            f"{K * class_floor} images; found {int(counts[y])}: "
            "lower `class_floor` or the number of sites"
        )


def iid(n: int, sites: int | Sequence[str], seed: int) -> Partition:
    """Split images evenly at random.

    Args:
        n: The number of images.
        sites: The number of sites, or their names.
        seed: The seed of the order.

    Returns:
        A partition in which the sites' numbers of images differ by at most one.
    """
    names = site_names(sites)
    order = Stream.of(seed, Purpose.PARTITION).permutation(n)
    parts = torch.tensor_split(order, len(names))
    return Partition(names, tuple(part.sort().values for part in parts), n)


def by_column(values: Sequence[str]) -> Partition:
    """Split a data set by the site name of each image; sites are in alphabetical order.

    Raises PlanError if a name is empty, or there are no images.
    """
    names, numbers = np.unique(np.array(values, dtype=str), return_inverse=True)
    index = tuple(torch.from_numpy(np.flatnonzero(numbers == k)) for k in range(len(names)))
    return Partition(site_names(names.tolist()), index, len(values))


def site_names(sites: int | Sequence[str]) -> tuple[str, ...]:
    """Return the given names, or site-1 .. site-K for a number K.

    Raises PlanError if there are no names, or a name is empty or occurs twice.
    """
    if isinstance(sites, str):
        raise PlanError(f"`sites` should be a number or several names; found the text `{sites}`")

    names = tuple(f"site-{k + 1}" for k in range(sites)) if isinstance(sites, int) else tuple(sites)
    _check_names(names)
    return names


def _check_names(names: tuple[str, ...]) -> None:
    if not names or not all(names) or len(set(names)) != len(names):
        raise PlanError(
            "there should be at least one site, each with a name of its own; "
            f"found {list(names)[:MOST_SHOWN]}"
        )
