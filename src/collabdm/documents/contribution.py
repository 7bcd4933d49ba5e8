"""A Contribution: one site's answer to a Plan, and the checks that it must pass.

For each step t in which it takes part and each class y that it has, a site sends the mean over a
batch B of its images

    L[t, y] = mean_{x in B} P_t ψ_t(augment(x))                (r numbers, encoded as `Plan.wire`)

where P_t ψ_t is the embedding of step t (`collabdm.matching.embedding`). It also sends, for each
class y, the size of the batch and n_y, the number of images of the class at the site; a few images
per class, from which the server starts; and the extra tensors that the Plan's method declares.

Reference: R. Holland, C. Thapa, S. A. Siddiqui, W. Shao, S. Camtepe, "One-shot collaborative data
distillation", 2024, Algorithm 1, lines 17 to 24.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from jaxtyping import Float32, Int64
from pydantic import Field
from torch import Tensor

from collabdm.documents.extra_tensors import EXTRA_PREFIX, DeclaredTensors, check_extra_tensors
from collabdm.documents.frozen_model import FrozenModel
from collabdm.documents.plan import Plan
from collabdm.documents.specs import WIRE_DTYPES, Wire
from collabdm.errors import DocumentError, PlanError
from collabdm.images import ImageSet

CONTRIBUTION_VERSION = 1
LARGEST_TOTAL = 2**40  # images of a class at one site; keeps sums over all sites far below 2^63
NORM_TOLERANCE = 0.01  # of the largest norm of a class mean, for rounding


@dataclass(frozen=True)
class Statistics:
    """The encoded class means of one site. Raises DocumentError if the parts are inconsistent.

    `codes` has shape (steps, classes present, r) and dtype float16, float32 or int8. `scales` has
    shape (steps, classes present) with int8, and is None otherwise. `batch_counts` and `totals`
    have one number per class present: of the images in a batch, and of all images of the class.
    """

    steps: Int64[Tensor, " T"]
    classes: Int64[Tensor, " P"]
    codes: Tensor
    scales: Float32[Tensor, "T P"] | None
    batch_counts: Int64[Tensor, " P"]
    totals: Int64[Tensor, " P"]

    def __post_init__(self) -> None:
        self._check_codes()
        self._check_scales()

        if not len(self.batch_counts) == len(self.totals) == len(self.classes):
            raise DocumentError(
                f"there should be one batch count and one total per class, {len(self.classes)}; "
                f"found {len(self.batch_counts)} and {len(self.totals)}"
            )
        _check_ascending("class numbers", self.classes)
        _check_ascending("steps", self.steps)

        wrong = (self.batch_counts < 1) | (self.totals < self.batch_counts)
        if bool(wrong.any()):
            i = wrong.tolist().index(True)
            raise DocumentError(
                "counts should be 1 <= images in a batch <= images of the class, for every class; "
                f"found {int(self.batch_counts[i])} and {int(self.totals[i])}"
            )

    def _check_codes(self) -> None:
        shape = (len(self.steps), len(self.classes))

        if self.codes.ndim != 3 or self.codes.shape[:2] != shape:
            raise DocumentError(
                f"statistics should be (steps, classes, width) = {(*shape, 'r')}; "
                f"found {tuple(self.codes.shape)}"
            )
        if self.codes.dtype not in WIRE_DTYPES.values():
            raise DocumentError(
                f"statistics should be float16, float32 or int8; found {self.codes.dtype}"
            )
        if self.codes.is_floating_point() and not bool(torch.isfinite(self.codes).all()):
            raise DocumentError("statistics should be finite; found NaN or infinity")

    def _check_scales(self) -> None:
        if (self.scales is not None) != (self.codes.dtype == torch.int8):
            raise DocumentError(
                "scales should be present with int8 statistics, and absent otherwise; found "
                f"{self.codes.dtype} with{'out' if self.scales is None else ''} scales"
            )
        if self.scales is None:
            return

        shape = self.codes.shape[:2]
        if self.scales.shape != shape or self.scales.dtype != torch.float32:
            raise DocumentError(
                f"scales should be float32 of shape {tuple(shape)}; "
                f"found {self.scales.dtype} of {tuple(self.scales.shape)}"
            )
        if not bool(torch.isfinite(self.scales).all()):
            raise DocumentError("scales should be finite; found NaN or infinity")
        if bool((self.scales < 0).any()):
            raise DocumentError(f"scales should be 0 or more; found {float(self.scales.min())}")

    @property
    def wire(self) -> Wire:
        """The encoding of the means."""
        return next(wire for wire, dtype in WIRE_DTYPES.items() if dtype == self.codes.dtype)

    def means(self, rows: slice = slice(None)) -> Float32[Tensor, "T P r"]:
        """Decode the class means of all steps, or of some rows of `steps`."""
        values = self.codes[rows].float()
        return values if self.scales is None else values * self.scales[rows, :, None]


def _check_ascending(name: str, numbers: Int64[Tensor, " n"]) -> None:
    """Check that numbers are 0 or more and strictly ascending. Raises DocumentError.

    Neighbours are compared rather than subtracted, because a difference could overflow.
    """
    previous = torch.cat([torch.tensor([-1]), numbers[:-1]])
    wrong = torch.nonzero(numbers <= previous).flatten().tolist()
    if wrong:
        i = wrong[0]
        place = f"after {int(previous[i])}" if i else "first"
        raise DocumentError(f"{name} should ascend from 0; found {int(numbers[i])} {place}")


class AddedNoise(FrozenModel):
    """The noise in a contribution under differential privacy.

    - `epsilon`, `delta`, `clip`, `steps`: the Plan's budget, bound and number of steps.
    - `noise_multiplier`: the standard deviation that the budget needs for a sensitivity of 1.
    - `sigma_sums`, `sigma_counts`: the standard deviations of the noise that the site added to each
      number of a class sum, and to each count.
    """

    mechanism: Literal["gaussian"] = "gaussian"
    epsilon: Annotated[float, Field(gt=0)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    clip: Annotated[float, Field(gt=0)]
    steps: Annotated[int, Field(ge=0)]
    noise_multiplier: Annotated[float, Field(gt=0)]
    sigma_sums: Annotated[float, Field(gt=0)]
    sigma_counts: Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Contribution:
    """One site's answer to a Plan.

    It consists of `statistics`, `images` (as many per class as `Local` requests), and the
    `extra_tensors` that the Plan's method declares. `noise` describes the noise of the statistics,
    if the Plan has a privacy budget.
    """

    site: str
    plan_digest: str
    statistics: Statistics
    images: ImageSet
    versions: dict[str, str] = field(default_factory=dict)
    extra_tensors: dict[str, Tensor] = field(default_factory=dict)
    noise: AddedNoise | None = None


@dataclass(frozen=True)
class ContributionSpec:
    """The required contents of a contribution: the Plan, and facts that follow from it.

    `width` is r, the number of values in a class mean; `extra` declares the method's tensors;
    `largest_norm` is the largest norm that a class mean can have, None if there is no bound.
    """

    plan: Plan
    width: int
    extra: DeclaredTensors
    largest_norm: float | None = None


def stated_counts(
    plan: Plan, counts: Int64[Tensor, " P"]
) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    """Return the batch counts and totals that a contribution states for classes of given sizes.

    A total is at most `Plan.largest_class`, and a batch count at most the total and `Plan.batch`.
    """
    totals = counts if plan.largest_class is None else counts.clamp_max(plan.largest_class)
    batches = totals if plan.batch is None else totals.clamp_max(plan.batch)
    return batches, totals


def check_contribution(spec: ContributionSpec, contribution: Contribution) -> None:
    """Check that a contribution answers the Plan. Raises DocumentError."""
    plan = spec.plan
    where = f"contribution of {contribution.site!r}"

    if contribution.plan_digest != plan.digest:
        raise DocumentError(
            f"{where}: plan digest should be {plan.digest[:16]}…; "
            f"found {contribution.plan_digest[:16]}…: "
            "it answers another plan; ask the site to run `collabdm contribute` with this one"
        )
    if plan.masking is not None:
        raise DocumentError(
            f"{where}: it should be masked, as the plan asks; found an open one: delete it, and "
            "ask the site to run `collabdm contribute`"
        )
    try:
        plan.check_site(contribution.site)
    except PlanError as error:
        raise DocumentError(f"{where}: {error}") from error

    _check_statistics(spec, contribution, where)
    _check_counts(plan, contribution.statistics, where)
    _check_images(plan, contribution, where)
    _check_noise(plan, contribution, where)
    check_extra_tensors(spec.extra, contribution.extra_tensors, where, EXTRA_PREFIX)


def _check_statistics(spec: ContributionSpec, contribution: Contribution, where: str) -> None:
    """Check steps, classes, width and encoding against the Plan. Raises DocumentError."""
    plan, statistics = spec.plan, contribution.statistics

    steps = plan.steps_of(contribution.site)
    if statistics.steps.tolist() != steps:
        count = len(statistics.steps)
        others = f"{count} others" if count == len(steps) else f"{count}"
        raise DocumentError(
            f"{where}: steps should be the {len(steps)} of the plan; found {others}"
        )

    if len(statistics.classes) == 0:
        raise DocumentError(f"{where}: at least one class should be present; found none")

    largest = int(statistics.classes[-1])
    if largest >= len(plan.classes):
        raise DocumentError(
            f"{where}: class numbers should be below {len(plan.classes)}; found {largest}"
        )

    width = statistics.codes.shape[2]
    if width != spec.width:
        raise DocumentError(
            f"{where}: a class mean should have {spec.width} numbers; found {width}"
        )

    if statistics.wire != plan.wire:
        raise DocumentError(f"{where}: wire type should be {plan.wire}; found {statistics.wire}")

    if spec.largest_norm is not None:
        _check_norms(statistics, spec.largest_norm, where)


def _check_norms(statistics: Statistics, largest: float, where: str) -> None:
    """Check that no class mean is longer than an embedding can be. Raises DocumentError.

    `NORM_TOLERANCE` allows for float rounding. A code of int8 may be wrong by half its scale, and
    with it a mean of r numbers by sqrt(r) / 2 times the scale, which is the largest value / 127.
    """
    limit, scales = largest * (1 + NORM_TOLERANCE), statistics.scales
    longest = statistics.codes.double().norm(dim=2)

    if scales is not None:
        widest = scales.double()
        longest = longest * widest - 0.5 * statistics.codes.shape[2] ** 0.5 * widest
        longest = torch.maximum(longest, 127 * widest)

    if longest.numel() and float(longest.max()) > limit:
        t, p = divmod(int(longest.argmax()), len(statistics.classes))
        raise DocumentError(
            f"{where}: a class mean should have a norm of at most {largest:.4g}, which is the most "
            f"that the network can give; found {float(longest.max()):.4g} at step "
            f"{int(statistics.steps[t])} for class {int(statistics.classes[p])}: leave this site "
            "out, or ask it for a new contribution"
        )


def _check_counts(plan: Plan, statistics: Statistics, where: str) -> None:
    """Check that a class's batch has all its images, but at most `Plan.batch`.

    Raises DocumentError.
    """
    totals, counts = statistics.totals, statistics.batch_counts

    most = LARGEST_TOTAL if plan.largest_class is None else plan.largest_class
    if int(totals.max()) > most:
        raise DocumentError(
            f"{where}: totals should be at most {most:,}; found {int(totals.max()):,}"
        )

    batches, _ = stated_counts(plan, totals)
    if counts.tolist() != batches.tolist():
        raise DocumentError(
            f"{where}: batch counts should be {batches.tolist()}; found {counts.tolist()}"
        )


def _check_images(plan: Plan, contribution: Contribution, where: str) -> None:
    """Check classes, shape, type and number of the local images. Raises DocumentError."""
    images = contribution.images

    if images.classes != plan.classes:
        raise DocumentError(f"{where}: classes should be {plan.classes}; found {images.classes}")
    if len(images) and images.shape != plan.image.shape:
        raise DocumentError(f"{where}: images should be {plan.image.shape}; found {images.shape}")
    if len(images) and images.images.dtype != plan.image_dtype:
        raise DocumentError(f"{where}: images should be {plan.images}; found {images.images.dtype}")

    present = torch.zeros(len(plan.classes), dtype=torch.int64)
    present[contribution.statistics.classes] = 1
    counts, expected = images.counts(), present * plan.local.images_sent
    fits = counts == expected
    if plan.local.method == "averages":
        fits |= counts == 0  # a class without a group of similar images

    if not bool(fits.all()):
        optional = " or 0" if plan.local.method == "averages" else ""
        raise DocumentError(
            f"{where}: images per class should be {expected.tolist()}{optional}; "
            f"found {counts.tolist()}"
        )


def _check_noise(plan: Plan, contribution: Contribution, where: str) -> None:
    """Check the stated noise, and that every class is sent, if the Plan has a privacy budget.

    Raises DocumentError.
    """
    privacy, noise = plan.privacy, contribution.noise
    if privacy is None:
        if noise is not None:
            raise DocumentError(f"{where}: noise should be absent, as in the plan; found {noise}")
        return

    expected = {
        "epsilon": privacy.epsilon,
        "delta": privacy.delta,
        "clip": privacy.clip,
        "steps": plan.steps,
    }
    found = None if noise is None else {name: getattr(noise, name) for name in expected}
    if found != expected:
        raise DocumentError(f"{where}: noise should be that of the plan, {expected}; found {found}")

    classes = len(contribution.statistics.classes)
    if classes != len(plan.classes):
        raise DocumentError(
            f"{where}: all {len(plan.classes)} classes should be sent, since the plan has a "
            f"privacy budget; found {classes}"
        )


def check_contributions(plan: Plan, sites: list[str]) -> None:
    """Check the sites of a round: at least one, no duplicates, no more than the Plan allows.

    Raises DocumentError.
    """
    if not sites:
        raise DocumentError("there should be at least one contribution; found none")

    repeated = sorted(site for site, count in Counter(sites).items() if count > 1)
    if repeated:
        raise DocumentError(
            f"each site should contribute once; found {', '.join(repeated)} more than once: "
            "remove one of the files"
        )

    if len(sites) > plan.sites:
        raise DocumentError(f"the plan is for {plan.sites} sites; found {len(sites)} contributions")


class CheckedContributions(Mapping[str, Contribution]):
    """The contributions of a round by site, each checked against `plan` when it was read."""

    plan: Plan
