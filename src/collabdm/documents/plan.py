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
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator, model_serializer, model_validator

from collabdm.documents.canonical_json import canonical_json
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.frozen_model import SITE_NAME, FrozenModel, LearningRate, Positive, SiteName
from collabdm.documents.specs import OPERATIONS, Merging, NetworkSpec, Operation, Wire
from collabdm.errors import PlanError
from collabdm.images import Normalisation
from collabdm.seeds import participants

PLAN_VERSION = 1


JSON_INTEGERS = 2**53  # every JSON reader keeps whole numbers below this exactly


class ImageSpec(FrozenModel):
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


class Matching(FrozenModel):
    """A run of distribution matching: how the synthetic images follow the gradient of the loss.

    `spread` weighs a further term that matches the standard deviation of every dimension of the
    embedding within a class (local distillation only: statistics carry means alone).
    """

    optimiser: Literal["sgd", "adam"] = "sgd"
    learning_rate: LearningRate = 10.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    schedule: Literal["constant", "cosine"] = "constant"
    spread: Annotated[float, Field(ge=0, le=100)] = 0.0


class Local(FrozenModel):
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


class Refinement(FrozenModel):
    """The server's part: `passes` over the T seeds; `batch` synthetic images per class and step (all if None)."""

    passes: Annotated[int, Field(ge=0, le=1000)] = 1
    batch: Positive | None = None
    matching: Matching = Matching()


class Probe(FrozenModel):
    """What the Plan's author computed at step 0, for a site to compare with (see `probe`)."""

    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    embedding: tuple[float, ...]


class Collection(FrozenModel):
    """When the server stops waiting: `quorum` sites have answered, and `deadline` seconds are over or all have."""

    quorum: Positive = 1
    deadline: Annotated[float, Field(gt=0, le=10**8)] = 3600.0


METHOD_NAME = r"[a-z][a-z0-9_-]{0,31}"

#: fields of a Plan that stand in its document only where they have a value, so that older plans keep their digest
EXTENSIONS = ("collection", "flows", "options")


class Plan(FrozenModel):
    """All that sites and server must agree on before the round; its seeds stand for T random networks."""

    classes: tuple[str, ...] = Field(min_length=2, max_length=10_000)
    image: ImageSpec
    seed: Annotated[int, Field(ge=0, lt=JSON_INTEGERS)] = 0
    sites: Positive = 5
    site_names: tuple[SiteName, ...] | None = None
    method: Annotated[str, Field(pattern=f"^{METHOD_NAME}$")] = "collabdm"
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
