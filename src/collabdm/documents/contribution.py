"""TODO documents.contribution."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.documents.extra_tensors import DeclaredTensors, check_extra_tensors
from collabdm.documents.plan import Plan
from collabdm.documents.specs import WIRE_DTYPES, Wire
from collabdm.errors import DocumentError, PlanError
from collabdm.images import ImageSet

CONTRIBUTION_VERSION = 1


LARGEST_TOTAL = 2**40  # images of a class at one site: sums over any number of sites stay far below 2^63


@dataclass(frozen=True)
class Statistics:
    """Class means of one site, as they travel.

    `codes` is (steps, classes present, r), float16, float32 or int8; `scales` is (steps, classes
    present) for int8, else None. `batch_counts` and `totals` are per class present: images in a
    batch, images held.
    """

    steps: Int64[Tensor, " T"]
    classes: Int64[Tensor, " P"]
    codes: Tensor
    scales: Float32[Tensor, "T P"] | None
    batch_counts: Int64[Tensor, " P"]
    totals: Int64[Tensor, " P"]

    def __post_init__(self) -> None:
        shape = (len(self.steps), len(self.classes))
        if self.codes.ndim != 3 or self.codes.shape[:2] != shape:
            raise DocumentError(
                f"statistics should be (steps, classes, width) = {(*shape, 'r')}; found {tuple(self.codes.shape)}"
            )
        if self.codes.dtype not in WIRE_DTYPES.values():
            raise DocumentError(f"statistics should be float16, float32 or int8; found {self.codes.dtype}")
        if (self.scales is not None) != (self.codes.dtype == torch.int8):
            raise DocumentError("scales should stand beside int8 statistics, and only there")
        if self.scales is not None and (self.scales.shape != shape or self.scales.dtype != torch.float32):
            raise DocumentError(
                f"scales should be float32 of shape {shape}; found {self.scales.dtype} of {tuple(self.scales.shape)}"
            )
        if not len(self.batch_counts) == len(self.totals) == len(self.classes):
            raise DocumentError("there should be one batch count and one total per class")
        self._check_values()

    def _check_values(self) -> None:
        floats = self.codes if self.scales is None else self.scales
        if not bool(torch.isfinite(floats).all()):
            raise DocumentError("statistics should be finite; found NaN or infinity")
        if self.scales is not None and bool((self.scales < 0).any()):
            raise DocumentError("scales should not be negative")
        if len(self.classes) and (int(self.classes[0]) < 0 or bool((self.classes.diff() <= 0).any())):
            raise DocumentError(f"class numbers should ascend from 0; found {self.classes.tolist()}")
        if bool((self.steps.diff() <= 0).any()):
            raise DocumentError("steps should ascend")
        if bool((self.batch_counts < 1).any()) or bool((self.totals < self.batch_counts).any()):
            raise DocumentError("counts should be 1 <= images in a batch <= images held, for every class present")

    @property
    def wire(self) -> Wire:
        """The wire type."""
        return next(wire for wire, dtype in WIRE_DTYPES.items() if dtype == self.codes.dtype)

    def means(self) -> Float32[Tensor, "T P r"]:
        """The class means, decoded."""
        values = self.codes.float()
        return values if self.scales is None else values * self.scales[:, :, None]


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
class ContributionSpec:
    """The contents that a contribution must have: the plan, and two facts that follow from its network and method.

    `width` is r, the number of values in the mean of a class; `extra` declares the tensors of the plan's method.
    """

    plan: Plan
    width: int
    extra: DeclaredTensors


def check_contribution(spec: ContributionSpec, contribution: Contribution) -> None:
    """Refuse a contribution that does not answer the plan. Raises DocumentError."""
    plan = spec.plan
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
    _check_statistics(spec, contribution, name)
    _check_images(plan, contribution, name)
    check_extra_tensors(spec.extra, contribution.parts, name)


def _check_statistics(spec: ContributionSpec, contribution: Contribution, name: str) -> None:
    plan, statistics = spec.plan, contribution.statistics
    expected = plan.steps_of(contribution.site)
    if statistics.steps.tolist() != expected:
        raise DocumentError(f"{name}: steps should be the {len(expected)} of the plan; found {len(statistics.steps)}")
    if len(statistics.classes) == 0:
        raise DocumentError(f"{name}: at least one class should be present; found none")
    if int(statistics.classes.max()) >= len(plan.classes):
        raise DocumentError(
            f"{name}: class numbers should be below {len(plan.classes)}; found {int(statistics.classes.max())}"
        )
    if statistics.codes.shape[2] != spec.width:
        raise DocumentError(f"{name}: a class mean should have {spec.width} numbers; found {statistics.codes.shape[2]}")
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


class CheckedContributions(Mapping[str, Contribution]):
    """Contributions of a round by site, each checked against `plan` when it was read."""

    plan: Plan
