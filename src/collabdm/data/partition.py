"""Split one data set over K sites, to simulate sites that each hold their own.

    p_y ~ Dirichlet(β, ..., β)                        one draw of K shares for each class y
    site k takes the shuffled images ⌊n_y (p_y1 + ... + p_y,k-1)⌋ .. ⌊n_y (p_y1 + ... + p_yk)⌋ - 1 of class y

The shares are gamma variates by the inverse distribution function, p_yk = g_k / Σ g, P(β, g_k) = u_k,
kept as logarithms: for small β almost all g_k are below the smallest float, and there
P(β, g) = g^β / Γ(β + 1), so log g = (log u + log Γ(β + 1)) / β.

A small β gives skewed sites, some of which may lack classes or hold nothing (`empty_sites`). With
`class_floor` every site is first handed that many images of every class and only the rest is split: the
authors' program does so, and it is easier than the split that the paper describes.

References: M. Yurochkin et al., "Bayesian nonparametric federated learning of neural networks", ICML 2019
(the split); R. Holland et al., "One-shot collaborative data distillation", 2024, section 4 (its use here).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from scipy.special import gammaincinv, gammaln
from torch import Tensor

from collabdm.documents.atomic_write import atomic_write
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.images import ImageSet
from collabdm.seeds import Purpose, Stream

BETA_RANGE = (1e-6, 1e6)


SMALL = 1e-100  # below it the gamma distribution function is its first term, to all digits


@dataclass(frozen=True, eq=False)
class Partition:
    """Which images each site holds.

    `names` are the sites, `index` one ascending int64 tensor of positions for each, `size` the number of
    images of the data set that was split. An image may belong to no site, never to two. Raises DataError.
    """

    names: tuple[str, ...]
    index: tuple[Int64[Tensor, " _"], ...]
    size: int

    def __post_init__(self) -> None:
        if len(self.names) != len(self.index):
            raise DataError(f"there should be one index per site; found {len(self.names)} and {len(self.index)}")
        _check_names(self.names)
        given = torch.cat(self.index)
        if len(given) and not 0 <= int(given.min()) <= int(given.max()) < self.size:
            raise DataError(
                f"positions should be in 0 .. {self.size - 1}; found {int(given.min())} .. {int(given.max())}"
            )
        position, times = given.unique(return_counts=True)
        if len(position) != len(given):
            raise DataError(
                "an image should belong to one site; found twice: "
                f"{position[times > 1][:8].tolist()} ({int((times > 1).sum())} in all)"
            )

    def sites(self, data: ImageSet) -> dict[str, ImageSet]:
        """The images of each site, by name. Raises DataError if another set was split."""
        self._check_fit(data)
        return {name: data.subset(index) for name, index in zip(self.names, self.index, strict=True)}

    def counts(self, data: ImageSet) -> Int64[Tensor, "K classes"]:
        """The number of images of each class at each site. Raises DataError if another set was split."""
        self._check_fit(data)
        classes = len(data.classes)
        return torch.stack([torch.bincount(data.labels[index], minlength=classes) for index in self.index])

    def save(self, path: Path) -> None:
        """Write the partition as JSON, so that it can be replayed. The file appears whole or not at all."""
        sites = [_Site(name=name, index=index.tolist()) for name, index in zip(self.names, self.index, strict=True)]
        text = _Document(format="collabdm-partition", version=1, size=self.size, sites=sites).model_dump_json()
        atomic_write(path, f"{text}\n".encode())

    @classmethod
    def load(cls, path: Path) -> "Partition":
        """Read what `save` wrote. Raises DocumentError if it is not a partition, or gives an image twice."""
        try:
            document = _Document.model_validate_json(path.read_bytes())
            index = tuple(torch.tensor(site.index, dtype=torch.int64) for site in document.sites)
            return cls(tuple(site.name for site in document.sites), index, document.size)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(map(str, first["loc"])) or "the text"
            raise DocumentError(f"`{path}` should be a saved partition; at {at}: {first['msg']}") from error
        except (OSError, DataError, PlanError) as error:
            raise DocumentError(f"`{path}` should be a saved partition; {error}") from error

    def _check_fit(self, data: ImageSet) -> None:
        if len(data) != self.size:
            raise DataError(f"the partition is of a set of {self.size} images; found one of {len(data)}")


Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Site(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    index: list[Count]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    format: Literal["collabdm-partition"]
    version: Literal[1]
    size: Count
    sites: list[_Site]


def dirichlet(
    labels: Int64[Tensor, " n"],
    classes: int,
    sites: int | Sequence[str],
    beta: float,
    seed: int,
    class_floor: int = 0,
) -> Partition:
    """Split every class over the sites by shares drawn from Dirichlet(beta); every image is given once.

    `classes`: the number of classes; `sites`: their number K or their names; `class_floor`: images of every
    class that each site gets before the rest is split. Raises PlanError for a setting that cannot be met
    (a class with fewer than K · class_floor images among them), DataError for labels outside.
    """
    names = site_names(sites)
    _check_dirichlet(labels, classes, beta, class_floor, len(names))
    given: list[list[Tensor]] = [[] for _ in names]
    for y in range(classes):
        stream = Stream.of(seed, Purpose.PARTITION, y)
        shares = dirichlet_shares(stream, len(names), beta)
        members = torch.nonzero(labels == y).flatten()
        members = members[stream.permutation(len(members))]
        for k, part in enumerate(_deal(members, shares, class_floor)):
            given[k].append(part)
    return Partition(names, tuple(torch.cat(parts).sort().values for parts in given), len(labels))


def dirichlet_shares(stream: Stream, K: int, beta: float) -> Float64[np.ndarray, " K"]:
    """One draw of K shares, positive or zero, that sum to one. `beta` in 1e-6 .. 1e6."""
    uniforms = ((stream.words(K) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52  # never 0, never 1
    gammas = gammaincinv(beta, uniforms)
    tail = (np.log(uniforms) + gammaln(beta + 1)) / beta
    logs = np.where(gammas > SMALL, np.log(np.maximum(gammas, SMALL)), tail)
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _deal(
    members: Int64[Tensor, " n_y"], shares: Float64[np.ndarray, " K"], class_floor: int
) -> list[Int64[Tensor, " _"]]:
    """The members of one class, each given once: the floor to every site, then the rest by shares."""
    K = len(shares)
    floor, rest = members[: K * class_floor].view(K, class_floor), members[K * class_floor :]
    cuts = np.floor(np.cumsum(shares)[:-1] * len(rest)).astype(np.int64).clip(0, len(rest))
    parts = torch.tensor_split(rest, cuts.tolist())
    return [torch.cat([first, more]) for first, more in zip(floor, parts, strict=True)]


def _check_dirichlet(labels: Int64[Tensor, " n"], classes: int, beta: float, class_floor: int, K: int) -> None:
    if not BETA_RANGE[0] <= beta <= BETA_RANGE[1]:
        raise PlanError(f"`beta` should be in {BETA_RANGE[0]} .. {BETA_RANGE[1]:.0f}; found {beta}")
    if class_floor < 0 or classes < 1:
        raise PlanError(f"`class_floor` should be 0 or more and `classes` 1 or more; found {class_floor} and {classes}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"labels should be in 0 .. {classes - 1}; found {int(labels.min())} .. {int(labels.max())}")
    counts = torch.bincount(labels, minlength=classes)
    if class_floor and int(counts.min()) < K * class_floor:
        y = int(counts.argmin())
        raise PlanError(
            f"class {y} should have at least {K} sites x {class_floor} (`class_floor`) = {K * class_floor} "
            f"images; found {int(counts[y])}. Lower `class_floor` or the number of sites"
        )


def iid(n: int, sites: int | Sequence[str], seed: int) -> Partition:
    """Split n images evenly at random: the sites' numbers of images differ by one at most."""
    names = site_names(sites)
    order = Stream.of(seed, Purpose.PARTITION).permutation(n)
    return Partition(names, tuple(part.sort().values for part in torch.tensor_split(order, len(names))), n)


def by_column(values: Sequence[str]) -> Partition:
    """One value per image names its site; the sites are in alphabetical order. Raises PlanError if empty."""
    names, numbers = np.unique(np.array(values, dtype=str), return_inverse=True)
    index = tuple(torch.from_numpy(np.flatnonzero(numbers == k)) for k in range(len(names)))
    return Partition(site_names(names.tolist()), index, len(values))


def empty_sites(partition: Partition) -> tuple[str, ...]:
    """The sites that hold no image."""
    return tuple(name for name, index in zip(partition.names, partition.index, strict=True) if not len(index))


def site_names(sites: int | Sequence[str]) -> tuple[str, ...]:
    """The names given, or site-1 .. site-K. Raises PlanError if there are none, or one is twice or empty."""
    if isinstance(sites, str):
        raise PlanError(f"`sites` should be a number or several names; found the text `{sites}`")
    names = tuple(f"site-{k + 1}" for k in range(sites)) if isinstance(sites, int) else tuple(sites)
    _check_names(names)
    return names


def _check_names(names: tuple[str, ...]) -> None:
    if not names or not all(names) or len(set(names)) != len(names):
        raise PlanError(f"there should be at least one site, each with a name of its own; found {list(names)[:8]}")
