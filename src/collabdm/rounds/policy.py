"""A site's policy: the limits that its operator sets for all plans, in a TOML file.

    largest_steps = 200          # steps of the plan
    largest_ipc = 50             # images per class of the distilled set
    largest_bytes = "5MB"        # size of the contribution
    largest_minutes = 60         # computing time, as estimated for two cores
    methods = ["collabdm-pae"]   # the methods that a plan may name
    largest_epsilon = 8          # privacy budget of this plan and all earlier releases together
    raw_images = false           # the images sent must neither be real nor start from real images
    smallest_class = 20          # the fewest images of a class, and behind each of its means
    largest_ratio = 0.5          # the most numbers sent for each number of a class's images
    masked_only = true           # plans must use masks, so that the server learns only sums
    without = ["ship"]           # classes that this site leaves out

    [site_keys]                  # the sites with which this one shares masks, and their public keys
    north = "64 hexadecimal digits"

`raw_images`, `smallest_class` and `largest_ratio` have these values unless the site sets others
(`privacy.release` gives the reasons); other settings impose no limit if they are omitted. Plans are
checked before anything is computed, and classes that are withheld are removed from the data before
anything else reads it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, ValidationError, field_validator

from collabdm.documents.extra_tensors import declared_bytes
from collabdm.documents.frozen_model import FrozenModel, validation_message
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError, did_you_mean
from collabdm.images import ImageSet
from collabdm.methods.registry import contribution_spec, method_of
from collabdm.planning.budget import read_bytes
from collabdm.planning.cost import cost
from collabdm.planning.settings import read_toml
from collabdm.privacy.release import (
    RELEASE_LIMIT,
    SMALLEST_CLASS,
    ClassRelease,
    ReleaseLimits,
    Withheld,
    class_releases,
    nothing_left,
    withheld_classes,
)
from collabdm.rounds.estimate import estimated_seconds

LEFT_OUT = "left out by this site"  # the reason for which a class is not sent
CLASSES_NAMED = 20  # in a message

Limit = Annotated[int, Field(ge=1)]


class PolicyError(PlanError):
    """The site's policy does not allow the plan."""


class RealImages(StrEnum):
    """How a contribution uses real images, phrased to follow "the plan"."""

    NONE = "sends no real images"
    START = "sends images that start from real ones"
    SENT = "sends real images as they are"
    START_OR_SENT = "sends images that are real, or start from real ones"


def real_images(plan: Plan) -> RealImages:
    """Determine how contributions to a plan use real images."""
    if not method_of(plan).shows_real_images(plan):
        return RealImages.NONE
    if plan.options is not None:  # the images are extra tensors, so no more is known
        return RealImages.START_OR_SENT
    return RealImages.SENT if plan.local.method == "random" else RealImages.START


@dataclass(frozen=True)
class Release:
    """The part of a site's data that its policy releases.

    Attributes:
        data: the images of the classes that are sent.
        classes: what the contribution releases about each of these classes.
        withheld: the classes that are not sent, with the reasons.
        limits: the limits that decided this.
    """

    data: ImageSet
    classes: tuple[ClassRelease, ...]
    withheld: tuple[Withheld, ...]
    limits: ReleaseLimits


class Policy(FrozenModel):
    """The limits that a site sets; None imposes no limit."""

    largest_steps: Limit | None = None
    largest_ipc: Limit | None = None
    largest_bytes: Limit | None = None
    largest_minutes: Annotated[float, Field(gt=0)] | None = None
    methods: tuple[str, ...] | None = None
    largest_epsilon: Annotated[float, Field(gt=0)] | None = None
    raw_images: bool = False
    smallest_class: Limit = SMALLEST_CLASS
    largest_ratio: Annotated[float, Field(gt=0)] = RELEASE_LIMIT
    masked_only: bool = False
    without: tuple[str, ...] = ()
    site_keys: dict[str, str] | None = None

    @field_validator("largest_bytes", mode="before")
    @classmethod
    def _bytes_from_text(cls, value: object) -> object:
        return read_bytes(value, "largest_bytes") if isinstance(value, str) else value

    def release(self, plan: Plan, data: ImageSet, site: str) -> Release:
        """Check that the policy allows a plan, and withhold the classes that it does not release.

        Args:
            plan: the plan.
            data: the site's images, at least one.
            site: the site's name.

        Returns:
            The data that may be used, and what a contribution releases about it.

        Raises:
            PolicyError: the policy does not allow the plan, withholds every class, or leaves out a
                class that the plan lacks; the message names every reason.
        """
        self._check_without(plan)
        limits = ReleaseLimits(self.smallest_class, self.largest_ratio)
        releases = class_releases(plan, data.counts(), site)
        chosen = [Withheld(one.name, LEFT_OUT) for one in releases if one.name in self.without]
        others = [one for one in releases if one.name not in self.without]
        withheld = [*chosen, *withheld_classes(plan, others, limits)]

        names = {one.name for one in withheld}
        sent = tuple(release for release in releases if release.name not in names)
        positions = torch.tensor([release.number for release in sent], dtype=torch.int64)
        released = data.subset(torch.nonzero(torch.isin(data.labels, positions)).flatten())

        reasons = self._reasons(plan, max(one.images for one in sent or releases))
        if not sent:
            reasons.append(nothing_left(withheld))
        if reasons:
            raise PolicyError(
                f"the plan should be allowed by this site's policy; {'; '.join(reasons)}"
            )
        return Release(released, sent, tuple(withheld), limits)

    def _check_without(self, plan: Plan) -> None:
        """Check the names of the classes to leave out. Raises PolicyError."""
        unknown = [name for name in self.without if name not in plan.classes]
        if unknown:
            listed = ", ".join(plan.classes[:CLASSES_NAMED])
            more = ", …" if len(plan.classes) > CLASSES_NAMED else ""
            advice = did_you_mean(unknown[0], plan.classes) or f": the classes are {listed}{more}"
            raise PolicyError(
                f"`without` should name classes of the plan; found {', '.join(unknown)}{advice}"
            )

    def _reasons(self, plan: Plan, images_per_class: int) -> list[str]:
        """List the reasons for which the policy does not allow a plan, as sentences."""
        reasons = self._exceeded(plan, images_per_class)

        requested = real_images(plan)
        if not self.raw_images and requested is not RealImages.NONE:
            reasons.append(
                f"`raw_images` is false, but the plan {requested} (`--allow-real-images` allows "
                "this; at a Flower node, only `raw_images = true` in its policy file does)"
            )
        average_of = plan.local.average_of
        if average_of is not None and average_of < self.smallest_class:
            reasons.append(
                f"`smallest_class` is {self.smallest_class:,}, but the plan asks for averages of "
                f"{average_of:,} images"
            )
        if self.methods is not None and plan.method not in self.methods:
            allowed = ", ".join(self.methods) or "none"
            reasons.append(f"`methods` are {allowed}, but the plan names {plan.method}")
        if self.masked_only and plan.masking is None:
            reasons.append("`masked_only` is true, but the plan asks for open contributions")
        reasons += self._unknown_keys(plan)
        return reasons

    def _exceeded(self, plan: Plan, images_per_class: int) -> list[str]:
        """List the limits that a plan exceeds, as sentences."""
        file_bytes = cost(plan, images_per_class).file_bytes
        extra_bytes = declared_bytes(contribution_spec(plan).extra)
        requests = (
            ("largest_steps", self.largest_steps, plan.steps),
            ("largest_ipc", self.largest_ipc, plan.ipc),
            ("largest_bytes", self.largest_bytes, file_bytes + extra_bytes),
        )
        reasons = [
            f"`{name}` is {limit:,}, but the plan asks for {requested:,}"
            for name, limit, requested in requests
            if limit is not None and requested > limit
        ]

        if self.largest_minutes is not None:
            reasons += self._too_long(estimated_seconds(plan, images_per_class), plan.method)
        return reasons

    def _unknown_keys(self, plan: Plan) -> list[str]:
        """List the sites whose keys in a plan with masks are not those that this site knows."""
        if self.site_keys is None or plan.masking is None:
            return []
        listed = sorted(plan.masking.keys.items())
        unknown = [site for site, key in listed if self.site_keys.get(site) != key]
        return [f"`site_keys` has no such key of {site}" for site in unknown]

    def _too_long(self, seconds: float | None, method: str) -> list[str]:
        limit = self.largest_minutes or 0.0
        if seconds is None:
            return [f"`largest_minutes` is {limit:g}, but the time of {method} is not estimated"]
        if seconds / 60 <= limit:
            return []
        minutes = float(f"{seconds / 60:.2g}")
        return [f"`largest_minutes` is {limit:,}, but the plan asks for {minutes:,}"]


def read_policy(path: Path | None) -> Policy:
    """Read the policy from a TOML file; without a file, the defaults of `Policy` apply.

    Raises:
        PlanError: the file cannot be read, or a setting does not fit.
    """
    try:
        return Policy.model_validate(read_toml(path))
    except ValidationError as error:
        raise PlanError(f"{path}: {validation_message(error)}") from error


def policy_at_site(
    path: Path | None,
    allow_real_images: bool = False,
    smallest_class: int | None = None,
    without: Sequence[str] = (),
) -> Policy:
    """Read the policy, and apply the decisions that the site's operator made on the command line.

    Args:
        path: the policy, a TOML file; None uses the defaults.
        allow_real_images: allow images that are real, or start from real ones.
        smallest_class: the fewest images of a class; None keeps that of the policy.
        without: the names of classes to leave out, besides those of the policy.

    Returns:
        The policy.

    Raises:
        PlanError: the file cannot be read, or a setting does not fit.
    """
    changes: dict[str, object] = {"raw_images": True} if allow_real_images else {}
    if smallest_class is not None:
        changes["smallest_class"] = smallest_class
    policy = read_policy(path)
    if without:
        changes["without"] = tuple(dict.fromkeys([*policy.without, *without]))
    return policy.model_copy(update=changes)
