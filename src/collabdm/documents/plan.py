"""The Plan: everything that the sites and the server agree on before a round.

One seed determines the random networks of all steps, so a Plan is a small JSON document. It is
identified by its digest, the SHA-256 of its canonical JSON. A contribution contains that digest; a
distilled set contains the whole Plan.

Reference: R. Holland, C. Thapa, S. A. Siddiqui, W. Shao, S. Camtepe, "One-shot collaborative data
distillation", 2024; docs/format.md, "Plan".
"""

import hashlib
import json
import re
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, JsonValue, field_validator, model_validator

from collabdm.documents.canonical_json import canonical_json
from collabdm.documents.distillation import Local, Refinement
from collabdm.documents.fixed_point import binary_places
from collabdm.documents.flow_schema import MOST_VALUES, FlowSchema
from collabdm.documents.frozen_model import (
    SITE_NAME,
    SITE_NAME_RULE,
    ExtendedModel,
    FrozenModel,
    Positive,
    SiteName,
)
from collabdm.documents.picture_rules import PictureRules
from collabdm.documents.protection import Masking, Privacy
from collabdm.documents.specs import (
    OPERATIONS,
    ROBUST_MERGING,
    ROW_NETWORKS,
    Merging,
    NetworkSpec,
    Operation,
    Wire,
)
from collabdm.errors import PlanError
from collabdm.images import Normalisation, listed
from collabdm.seeds import participants

PLAN_VERSION = 1
JSON_INTEGERS = 2**53  # whole numbers below this are exact in every JSON reader

SMALLEST_SIDE = 8  # pixels, of an image that is not a row of a table
MOST_CHANNELS = 16  # of such an image

MOST_DRAWS = 10**7  # names that are drawn to find the sites of all steps

METHOD_NAME = r"[a-z][a-z0-9_-]{0,31}"

#: the methods whose sites add the noise of a privacy budget
PRIVATE_METHODS = ("collabdm", "collabdm-pae", "central", "central-pae")


class ImageSpec(FrozenModel):
    """The image format of all sites: square images, normalised with these constants.

    A row of a table is an image of side 1, with a channel for each encoded value.
    """

    channels: Annotated[int, Field(ge=1, le=MOST_VALUES)]
    side: Annotated[int, Field(ge=1, le=512)]
    mean: tuple[Annotated[float, Field(ge=-1000, le=1000)], ...]
    std: tuple[Annotated[float, Field(ge=1e-6, le=1000)], ...]

    @model_validator(mode="after")
    def _has_the_size_of_an_image(self) -> "ImageSpec":
        if self.side == 1:
            return self
        if self.side < SMALLEST_SIDE:
            raise ValueError(
                f"`side` should be at least {SMALLEST_SIDE}, or 1 for rows of a table; "
                f"found {self.side}"
            )
        if self.channels > MOST_CHANNELS:
            raise ValueError(f"`channels` should be at most {MOST_CHANNELS}; found {self.channels}")
        return self

    @model_validator(mode="after")
    def _one_constant_per_channel(self) -> "ImageSpec":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(
                f"`mean` and `std` should have {self.channels} values, one per channel; "
                f"found {len(self.mean)} and {len(self.std)}"
            )
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.side, self.side

    @property
    def normalisation(self) -> Normalisation:
        """The map from pixels to network units."""
        return Normalisation(self.mean, self.std)


class Probe(FrozenModel):
    """Values that the author of the Plan computed at step 0; sites compare them with their own."""

    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    embedding: tuple[float, ...]


class Collection(FrozenModel):
    """When a network collection ends: once all sites have answered, or after `deadline` seconds.

    The round is valid if at least `quorum` sites have contributed.
    """

    quorum: Positive = 1
    deadline: Annotated[float, Field(gt=0, le=10**8)] = 3600.0


class Plan(ExtendedModel):
    """The settings that sites and server agree on. docs/format.md describes every field."""

    extensions: ClassVar[tuple[str, ...]] = (
        *("collection", "flows", "largest_class", "masking", "options", "pictures", "privacy"),
        "trim",
    )

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
    largest_class: Annotated[int, Field(ge=1, le=2**40)] | None = None
    trim: Positive | None = None
    masking: Masking | None = None
    privacy: Privacy | None = None
    pictures: PictureRules | None = None

    def __hash__(self) -> int:
        return hash(self.digest)  # `options` is a dict, which has no hash

    def __repr__(self) -> str:
        """Describe the plan in one line; `model_dump` returns all settings."""
        size = " x ".join(map(str, self.image.shape))
        return (
            f"Plan({self.digest[:8]}…: {self.method}, {self.sites} site{'s' * (self.sites != 1)}, "
            f"T = {self.steps}, ipc {self.ipc}, {size}, {listed(self.classes)})"
        )

    __str__ = __repr__

    @field_validator("options")
    @classmethod
    def _options_have_a_digest(
        cls, options: dict[str, JsonValue] | None
    ) -> dict[str, JsonValue] | None:
        try:
            canonical_json(options)
        except PlanError as error:
            raise ValueError(
                "should have whole numbers of at most 2^53 - 1 and Unicode text"
            ) from error
        return options

    @model_validator(mode="after")
    def _fields_agree(self) -> "Plan":
        self._check_names()
        self._check_images()
        self._check_round()
        self._check_masking()
        self._check_privacy()
        return self

    def _check_names(self) -> None:
        if len(set(self.classes)) != len(self.classes) or "" in self.classes:
            raise ValueError("`classes` should be distinct names, none empty")

        if len(set(self.augment)) != len(self.augment):
            raise ValueError("`augment` should name every operation once")

        names = self.site_names
        if names is not None and not len(set(names)) == len(names) == self.sites:
            raise ValueError(
                f"`site_names` should be {self.sites} distinct names, one for each of `sites`; "
                f"found {', '.join(names)}"
            )

    def _check_images(self) -> None:
        if self.image.side % self.pae:
            raise ValueError(
                f"`pae` should divide the image side {self.image.side}; found {self.pae}"
            )

        flows = self.flows
        if flows is None:
            if self.image.side == 1:
                raise ValueError(
                    f"`image.side` 1 needs `flows` as rows; found no `flows`: use images of side "
                    f"{SMALLEST_SIDE} or more"
                )
            return
        if flows.classes != self.classes or flows.image_shape != self.image.shape:
            raise ValueError(
                f"`flows` should have the plan's `classes`, and images of {self.image.shape}; "
                f"found {len(flows.classes)} classes and images of {flows.image_shape}"
            )
        if flows.as_rows:
            self._check_rows()

    def _check_rows(self) -> None:
        """Check the settings of a plan for rows of a table. Raises ValueError."""
        network, flows = self.network, self.flows
        if network.name not in ROW_NETWORKS:
            raise ValueError(
                f"`network` should be {' or '.join(ROW_NETWORKS)} for rows; found {network.name}"
            )
        if flows is not None and network.columns not in (None, flows.widths):
            raise ValueError("`network.columns` should be the encoded values of `flows.columns`")
        if self.images != "float32":
            raise ValueError(f"`images` should be float32 for rows; found {self.images}")
        if self.augment:
            raise ValueError(
                f"`augment` should be empty for rows; found {', '.join(self.augment)}, which move "
                "pixels"
            )

    def _check_round(self) -> None:
        if self.collection is not None and self.collection.quorum > self.sites:
            raise ValueError(
                f"`collection.quorum` should be at most `sites`, {self.sites}; "
                f"found {self.collection.quorum}"
            )

        if self.network.norm == "batch":
            raise ValueError(
                "`network.norm` should not be batch: an embedding should not depend on other images"
            )

        if self.trim is not None and self.merging != "trimmed":
            raise ValueError(f"`trim` needs `merging` trimmed; found {self.merging}")
        if self.trim is not None and 2 * self.trim >= self.sites:
            raise ValueError(
                f"`trim` should leave at least one of `sites`, {self.sites}; found {self.trim} at "
                "each end"
            )

        if self.fraction < 1 and self.steps * self.sites > MOST_DRAWS:
            raise ValueError(
                f"`fraction` below 1 needs `steps` times `sites` of at most {MOST_DRAWS:,}; "
                f"found {self.steps * self.sites:,}"
            )
        if self.fraction < 1 and self.site_names is None:
            raise ValueError(
                "`fraction` below 1 needs `site_names`: the steps of a site are drawn by its name"
            )

    def _check_masking(self) -> None:
        masking = self.masking
        if masking is None:
            return
        if set(self.site_names or ()) != set(masking.keys):
            raise ValueError("`masking.keys` should have one key for each of `site_names`")
        if len(set(masking.keys.values())) != len(masking.keys):
            raise ValueError("`masking.keys` should be distinct; found one key for several sites")
        if masking.threshold > self.sites:
            raise ValueError(
                f"`masking.threshold` should be at most `sites`, {self.sites}; "
                f"found {masking.threshold}"
            )
        if self.largest_class is None:
            raise ValueError("`masking` needs `largest_class`, which bounds the sums")
        if self.merging in ROBUST_MERGING:
            raise ValueError(
                "`masking` needs `merging` weighted or uniform, because the server learns only "
                f"sums; found {self.merging}"
            )
        if self.wire != "float32":
            raise ValueError(f"`masking` needs `wire` float32; found {self.wire}")
        self._check_statistics_alone("masking")
        self._check_sums_fit(masking, self.largest_class)

    def _check_sums_fit(self, masking: Masking, largest_class: int) -> None:
        """Check that sums of counts and means fit into `bits`. Raises ValueError."""
        bits, largest = masking.bits, max(masking.range, 1.0)
        if binary_places(self.sites, largest_class, largest, bits) is None:
            raise ValueError(
                f"`masking.bits` {bits} should suffice for the sums of {self.sites} sites with "
                f"`largest_class` {largest_class} and `masking.range` {masking.range:g}; they do "
                "not: use 64 bits, or lower the bounds"
            )

    def _check_privacy(self) -> None:
        if self.privacy is None:
            return
        if self.batch is not None:
            raise ValueError(
                "`privacy` needs a `batch` of all images, because it bounds what one image "
                f"changes over all steps; found {self.batch}"
            )
        if self.merging != "weighted":
            raise ValueError(f"`privacy` needs `merging` weighted; found {self.merging}")
        if self.method not in PRIVATE_METHODS:
            raise ValueError(
                f"`privacy` needs a `method` that adds noise: {', '.join(PRIVATE_METHODS)}; "
                f"found {self.method}"
            )
        if self.steps == 0:
            raise ValueError("`privacy` needs `steps` of at least 1; found 0")
        self._check_statistics_alone("privacy")

    def _check_statistics_alone(self, name: str) -> None:
        """Check that sites send nothing but statistics of every step. Raises ValueError."""
        if self.local.method != "none" or self.options is not None or self.fraction < 1:
            raise ValueError(
                f"`{name}` needs a round in which all sites send statistics of every step and "
                "nothing else: `local.method` none, `fraction` 1, no `options`"
            )

    @property
    def image_dtype(self) -> torch.dtype:
        """The torch dtype of stored pixels, given by `images`."""
        return torch.uint8 if self.images == "uint8" else torch.float32

    @property
    def has_rows(self) -> bool:
        """Whether the data are rows of a table, stored as images of one pixel."""
        return self.image.side == 1

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return _digest(self.model_dump_json())

    @property
    def binary_places(self) -> int:
        """The binary places of a masked sum of means; 0 without masks."""
        if self.masking is None:
            return 0

        weight = (self.largest_class or 1) if self.merging == "weighted" else 1
        places = binary_places(self.sites, weight, self.masking.range, self.masking.bits)
        return places or 0

    def steps_of(self, site: str) -> list[int]:
        """Return the steps in which a site takes part (A_k in the paper)."""
        if self.fraction == 1 or self.site_names is None:
            return list(range(self.steps))

        names = sorted(self.site_names)  # once, not at every step
        return [
            t for t in range(self.steps) if site in participants(self.seed, t, names, self.fraction)
        ]

    def check_site(self, site: str) -> None:
        """Check that the Plan allows a site's name. Raises PlanError."""
        if self.site_names is not None and site not in self.site_names:
            raise PlanError(f"`site` should be one of {', '.join(self.site_names)}; found {site!r}")

        if re.fullmatch(SITE_NAME, site) is None:
            raise PlanError(f"`site` {SITE_NAME_RULE}; found {site!r}")


@lru_cache
def _digest(document: str) -> str:
    return hashlib.sha256(canonical_json(json.loads(document)).encode()).hexdigest()
