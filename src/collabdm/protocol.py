"""The three documents: Plan, Contribution, DistilledSet.

    Plan  ->  each site: Contribution  ->  anyone: DistilledSet

All are frozen. A Plan is identified by the SHA-256 of its canonical JSON; the other two carry that
digest. What a document may hold is stated in docs/format.md; how it lies on disk is `files`.

Reference: R. Holland, C. Thapa, S. A. Siddiqui, W. Shao, S. Camtepe, "One-shot collaborative data
distillation", 2024.
"""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float32
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import Tensor

from collabdm.augment import OPERATIONS, Operation
from collabdm.errors import DocumentError, PlanError
from collabdm.flows.schema import FlowSchema
from collabdm.images import ImageSet, Normalisation
from collabdm.networks import NetworkSpec, build
from collabdm.seeds import participants
from collabdm.statistics import Merging, Statistics, Wire

PLAN_VERSION = 1
CONTRIBUTION_VERSION = 1
DISTILLED_VERSION = 1
STEPS_VERSION = 1
MODEL_VERSION = 1

JSON_INTEGERS = 2**53  # every JSON reader keeps whole numbers below this exactly
LARGEST_TOTAL = 2**40  # images of a class at one site: sums over any number of sites stay far below 2^63

Positive = Annotated[int, Field(ge=1, le=10**6)]
Rate = Annotated[float, Field(gt=0, le=10**4)]
SITE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
SiteName = Annotated[str, Field(pattern=f"^{SITE_NAME}$")]


class Part(BaseModel):
    """A frozen part of a Plan; unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageSpec(Part):
    """The images of all sites: square, `channels` x `side` x `side`, normalised with these constants."""

    channels: Annotated[int, Field(ge=1, le=16)]
    side: Annotated[int, Field(ge=8, le=128)]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _one_constant_per_channel(self) -> "ImageSpec":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"`mean` and `std` should have {self.channels} values, one per channel")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.side, self.side

    @property
    def normalisation(self) -> Normalisation:
        """The map from pixels to what networks see."""
        return Normalisation(self.mean, self.std)


class Matching(Part):
    """A run of distribution matching: how the synthetic images follow the gradient of the loss.

    `spread` weighs a further term that matches the standard deviation of every dimension of the
    embedding within a class (local distillation only: statistics carry means alone).
    """

    optimiser: Literal["sgd", "adam"] = "sgd"
    learning_rate: Rate = 10.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    schedule: Literal["constant", "cosine"] = "constant"
    spread: Annotated[float, Field(ge=0, le=100)] = 0.0


class Local(Part):
    """What a site sends beside its statistics: `images` per class that it holds.

    `dm`: distilled by distribution matching from its own data; `random`: real images as they are;
    `none`: nothing. `start` says what `dm` starts from, and what fills a class at the server that
    got too few images: real images (of the site), or noise, which shows no real image.
    """

    method: Literal["dm", "random", "none"] = "dm"
    start: Literal["real", "noise"] = "real"
    images: Annotated[int, Field(ge=0, le=10**6)] = 0
    steps: Annotated[int, Field(ge=0, le=10**6)] = 400
    batch: Positive = 256
    matching: Matching = Matching(learning_rate=1.0)


class Refinement(Part):
    """The server's part: `passes` over the T seeds; `batch` synthetic images per class and step (all if None)."""

    passes: Annotated[int, Field(ge=0, le=1000)] = 1
    batch: Positive | None = None
    matching: Matching = Matching()


class Probe(Part):
    """What the Plan's author computed at step 0, for a site to compare with (see `probe`)."""

    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    embedding: tuple[float, ...]


class Collection(Part):
    """When the server stops waiting: `quorum` sites have answered, and `deadline` seconds are over or all have."""

    quorum: Positive = 1
    deadline: Annotated[float, Field(gt=0, le=10**8)] = 3600.0


#: fields of a Plan that stand in its document only where they have a value, so that older plans keep their digest
EXTENSIONS = ("collection", "flows", "options")


class Plan(Part):
    """All that sites and server must agree on before the round; its seeds stand for T random networks."""

    classes: tuple[str, ...] = Field(min_length=2, max_length=10_000)
    image: ImageSpec
    seed: Annotated[int, Field(ge=0, lt=JSON_INTEGERS)] = 0
    sites: Positive = 5
    site_names: tuple[SiteName, ...] | None = None
    method: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")] = "collabdm"
    ipc: Annotated[int, Field(ge=1, le=10_000)] = 10
    pae: Annotated[int, Field(ge=1, le=8)] = 1
    steps: Annotated[int, Field(ge=0, le=100_000)] = 100
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch: Positive | None = 256
    network: NetworkSpec = NetworkSpec()
    augment: tuple[Operation, ...] = OPERATIONS
    sketch: Positive | None = None
    wire: Wire = "float16"
    images: Literal["uint8", "float32"] = "uint8"
    merging: Merging = "weighted"
    local: Local = Local()
    refinement: Refinement = Refinement()
    probe: Probe | None = None
    collection: Collection | None = None
    flows: FlowSchema | None = None
    options: dict[str, JsonValue] | None = None

    def __hash__(self) -> int:
        return hash(self.digest)  # `options` is a dict, which has none

    @field_validator("options")
    @classmethod
    def _options_can_be_written(cls, options: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        try:
            json.dumps(options, allow_nan=False)
        except ValueError as error:
            raise ValueError("`options` should hold finite numbers; found NaN or infinity") from error
        return options

    @model_serializer(mode="wrap")
    def _without_absent_extensions(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if v is not None or k not in EXTENSIONS}

    @model_validator(mode="after")
    def _parts_agree(self) -> "Plan":
        if len(set(self.classes)) != len(self.classes) or "" in self.classes:
            raise ValueError("`classes` should be distinct names, none empty")
        if len(set(self.augment)) != len(self.augment):
            raise ValueError("`augment` should name every operation once")
        if self.image.side % self.pae:
            raise ValueError(f"`pae` should divide the image side {self.image.side}; found {self.pae}")
        if self.site_names is not None and not len(set(self.site_names)) == len(self.site_names) == self.sites:
            raise ValueError(f"`site_names` should be {self.sites} distinct names, as `sites` says")
        if self.collection is not None and self.collection.quorum > self.sites:
            raise ValueError(
                f"`collection.quorum` should be at most `sites`, {self.sites}; found {self.collection.quorum}"
            )
        if self.flows is not None and (self.flows.classes, (1, self.flows.side, self.flows.side)) != (
            self.classes,
            self.image.shape,
        ):
            raise ValueError(
                f"`flows` should have the plan's `classes`, and images of {self.image.shape}; "
                f"found {len(self.flows.classes)} classes and side {self.flows.side}"
            )
        if self.network.norm == "batch":
            raise ValueError("`network.norm` should not be batch: an embedding should not depend on other images")
        if self.fraction < 1 and self.site_names is None:
            raise ValueError("`fraction` below 1 needs `site_names`: sites draw which of them take part in a step")
        return self

    @property
    def width(self) -> int:
        """r: how many numbers the mean of a class is, min(sketch, embedding width)."""
        width = _embedding_width(self.network, self.image.shape, len(self.classes))
        return width if self.sketch is None else min(self.sketch, width)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return _digest(self.model_dump_json())

    def steps_of(self, site: str) -> list[int]:
        """A_k: the steps in which a site takes part."""
        if self.fraction == 1 or self.site_names is None:
            return list(range(self.steps))
        return [t for t in range(self.steps) if site in participants(self.seed, t, self.site_names, self.fraction)]

    def check_site(self, site: str) -> None:
        """Refuse a name that the Plan does not allow."""
        if self.site_names is not None and site not in self.site_names:
            raise PlanError(f"`site` should be one of {', '.join(self.site_names)}; found {site!r}")
        if re.fullmatch(SITE_NAME, site) is None:
            raise PlanError(
                f"`site` should be 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first; found {site!r}"
            )


@lru_cache
def _digest(document: str) -> str:
    return hashlib.sha256(canonical_json(json.loads(document)).encode()).hexdigest()


@lru_cache
def _embedding_width(network: NetworkSpec, shape: tuple[int, int, int], classes: int) -> int:
    return build(network, shape, classes).embedding_width


@dataclass(frozen=True)
class Contribution:
    """What one site answers: statistics of its classes, a few images (see `Local`), and the further `parts`
    that the plan's method declares (see `parts`).
    """

    site: str
    plan_digest: str
    statistics: Statistics
    images: ImageSet
    versions: dict[str, str] = field(default_factory=dict)
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class DistilledSet:
    """The outcome: exactly `ipc` images of every class that some site has.

    `plan` is carried whole, so that the set can be used without any other file. With pae, each
    image holds `plan.pae`^2 small ones: train on `expanded` images.
    """

    images: ImageSet
    plan: Plan
    sites: dict[str, list[int]]
    method: str
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DistilledSteps:
    """An outcome that is a course of training: steps of images with soft labels (logits) and learning rates.

    `images` is (steps, images, channels, height, width), pixels as the plan says; `labels` (steps, images, classes);
    `rates` (steps,). What the course begins from follows from `plan`.
    """

    images: Tensor
    labels: Float32[Tensor, "s m classes"]
    rates: Float32[Tensor, " s"]
    plan: Plan
    sites: dict[str, list[int]]
    method: str
    versions: dict[str, str] = field(default_factory=dict)

    def as_set(self) -> ImageSet:
        """The images as data, by class, each with the class of its largest logit."""
        labels = self.labels.flatten(0, 1).argmax(1)
        order = labels.argsort(stable=True)
        return ImageSet(self.images.flatten(0, 1)[order], labels[order], self.plan.classes)


def check_contribution(plan: Plan, contribution: Contribution) -> None:
    """Refuse a contribution that does not answer this plan. Raises DocumentError."""
    name = f"contribution of {contribution.site!r}"
    if contribution.plan_digest != plan.digest:
        raise DocumentError(
            f"{name}: plan digest should be {plan.digest[:16]}…; found {contribution.plan_digest[:16]}…: "
            "it answers another plan; ask the site to run `collabdm contribute` with this one"
        )
    try:
        plan.check_site(contribution.site)
    except PlanError as error:
        raise DocumentError(f"{name}: {error}") from error
    _check_statistics(plan, contribution, name)
    _check_images(plan, contribution, name)


def _check_statistics(plan: Plan, contribution: Contribution, name: str) -> None:
    statistics = contribution.statistics
    expected = plan.steps_of(contribution.site)
    if statistics.steps.tolist() != expected:
        raise DocumentError(f"{name}: steps should be the {len(expected)} of the plan; found {len(statistics.steps)}")
    if len(statistics.classes) == 0:
        raise DocumentError(f"{name}: at least one class should be present; found none")
    if int(statistics.classes.max()) >= len(plan.classes):
        raise DocumentError(
            f"{name}: class numbers should be below {len(plan.classes)}; found {int(statistics.classes.max())}"
        )
    if statistics.codes.shape[2] != plan.width:
        raise DocumentError(f"{name}: a class mean should have {plan.width} numbers; found {statistics.codes.shape[2]}")
    if int(statistics.totals.max()) > LARGEST_TOTAL:
        raise DocumentError(
            f"{name}: totals should be at most {LARGEST_TOTAL:,}; found {int(statistics.totals.max()):,}"
        )
    batches = statistics.totals if plan.batch is None else statistics.totals.clamp_max(plan.batch)
    if statistics.batch_counts.tolist() != batches.tolist():
        raise DocumentError(
            f"{name}: batch counts should be {batches.tolist()}; found {statistics.batch_counts.tolist()}"
        )
    if statistics.wire != plan.wire:
        raise DocumentError(f"{name}: wire type should be {plan.wire}; found {statistics.wire}")


def _check_images(plan: Plan, contribution: Contribution, name: str) -> None:
    images = contribution.images
    if images.classes != plan.classes:
        raise DocumentError(f"{name}: classes should be {plan.classes}; found {images.classes}")
    if len(images) and images.shape != plan.image.shape:
        raise DocumentError(f"{name}: images should be {plan.image.shape}; found {images.shape}")
    if len(images) and str(images.images.dtype) != f"torch.{plan.images}":
        raise DocumentError(f"{name}: images should be {plan.images}; found {images.images.dtype}")
    present = torch.zeros(len(plan.classes), dtype=torch.bool)
    present[contribution.statistics.classes] = True
    expected = present * (0 if plan.local.method == "none" else plan.local.images)
    if images.counts().tolist() != expected.tolist():
        raise DocumentError(f"{name}: images per class should be {expected.tolist()}; found {images.counts().tolist()}")


def check_contributions(plan: Plan, sites: list[str]) -> None:
    """Refuse an empty round and two contributions of one site. Raises DocumentError."""
    if not sites:
        raise DocumentError("there should be at least one contribution; found none")
    twice = sorted({site for site in sites if sites.count(site) > 1})
    if twice:
        raise DocumentError(
            f"each site should contribute once; found {', '.join(twice)} more than once: remove one of the files"
        )
    if len(sites) > plan.sites:
        raise DocumentError(f"the plan is for {plan.sites} sites; found {len(sites)} contributions")


def canonical_json(value: Any) -> str:
    """JSON in the canonical form of RFC 8785 (sorted keys, no spaces, ECMAScript numbers).

    >>> canonical_json({"b": 1.0, "a": [0.1, 1e-7]})
    '{"a":[0.1,1e-7],"b":1}'
    """
    if isinstance(value, dict):
        items = (
            f"{canonical_json(k)}:{canonical_json(v)}"
            for k, v in sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
        )
        return "{" + ",".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(canonical_json, value)) + "]"
    if isinstance(value, float):
        return _ecmascript_number(value)
    return json.dumps(value, ensure_ascii=False)


def _ecmascript_number(value: float) -> str:
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.removesuffix(".0")
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa}e{int(exponent):+d}"
