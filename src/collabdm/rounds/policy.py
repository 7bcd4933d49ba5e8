"""What a site will do is the site's decision: a small TOML file of its own, obeyed on every route.

    largest_steps = 200          # T
    largest_ipc = 50             # images per class of the set
    largest_bytes = "5MB"        # that the site sends
    largest_minutes = 60         # that the site computes, as foretold for two cores
    raw_images = false           # may what is sent begin as, or be, real images
    smallest_class = 20          # a class with fewer images is withheld
    methods = ["collabdm-pae"]   # of those that a plan may name

Whatever is left out is not limited. The plan is checked before anything is computed; a class that is
withheld is taken out of the data before anything looks at them.
"""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, ValidationError, field_validator

from collabdm.documents.contribution import Contribution, Statistics
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.extra_tensors import declared_bytes
from collabdm.documents.frozen_model import FrozenModel, validation_message
from collabdm.documents.plan import Plan
from collabdm.errors import DataError, PlanError
from collabdm.images import ImageSet
from collabdm.matching.class_statistics import encode
from collabdm.matching.network_size import statistics_width
from collabdm.methods.registry import contribution_spec, method_of
from collabdm.planning.budget import read_bytes
from collabdm.planning.cost import cost
from collabdm.planning.settings import read_toml
from collabdm.rounds.inspect import MULTIPLICATIONS_PER_SECOND, Row, duration
from collabdm.version import versions

Limit = Annotated[int, Field(ge=1)]


class PolicyError(PlanError):
    """A plan asks for what the site does not allow."""


class Policy(FrozenModel):
    """What a site allows; None does not limit."""

    largest_steps: Limit | None = None
    largest_ipc: Limit | None = None
    largest_bytes: Limit | None = None
    largest_minutes: Annotated[float, Field(gt=0)] | None = None
    raw_images: bool = True
    smallest_class: Limit = 1
    methods: tuple[str, ...] | None = None

    @field_validator("largest_bytes", mode="before")
    @classmethod
    def _as_people_write_it(cls, value: object) -> object:
        return read_bytes(value, "largest_bytes") if isinstance(value, str) else value

    def withhold(self, data: ImageSet) -> ImageSet:
        """The data without classes of fewer than `smallest_class` images. Raises DataError where none is left."""
        counts = data.counts()
        kept = data.subset(torch.nonzero(counts[data.labels] >= self.smallest_class).flatten())
        if len(data) and not len(kept):
            raise DataError(
                f"some class should have {self.smallest_class} images, `smallest_class` of the policy; "
                f"the largest has {int(counts.max())}: nothing can be sent"
            )
        return kept

    def check(self, plan: Plan, data: ImageSet) -> None:
        """Refuse a plan, naming all that is not allowed. `data` are those to be used. Raises PolicyError."""
        foretold = cost(plan, int(data.counts().max()))
        minutes = foretold.multiplications / MULTIPLICATIONS_PER_SECOND / 60
        rows = (
            ("largest_steps", self.largest_steps, plan.steps),
            ("largest_ipc", self.largest_ipc, plan.ipc),
            ("largest_bytes", self.largest_bytes, foretold.file_bytes + declared_bytes(contribution_spec(plan).extra)),
            ("largest_minutes", self.largest_minutes, minutes),
        )
        refused = [
            f"`{name}` is {limit:,}; the plan asks for {asked if isinstance(asked, int) else float(f'{asked:.2g}'):,}"
            for name, limit, asked in rows
            if limit is not None and asked > limit
        ]
        if self.largest_minutes is not None and plan.options is not None:
            refused.append(f"`largest_minutes` is {self.largest_minutes:g}; the time of {plan.method} is not foretold")
        if not self.raw_images and (what := _raw(plan)):
            refused.append(f"`raw_images` is false; the plan {what}")
        if self.methods is not None and plan.method not in self.methods:
            refused.append(f"`methods` are {', '.join(self.methods) or 'none'}; the plan says {plan.method}")
        if refused:
            raise PolicyError("the plan should be allowed by this site's policy; " + "; ".join(refused))


def read_policy(path: Path | None) -> Policy:
    """The policy in a TOML file; without a file everything is allowed. Raises PlanError."""
    try:
        return Policy.model_validate(read_toml(path))
    except ValidationError as error:
        raise PlanError(f"{path}: {validation_message(error)}") from error


def preview_contribution(plan: Plan, data: ImageSet, site: str) -> list[Row]:
    """What an answer would be, by (part, value): its bytes to the byte, its classes and counts, the time."""
    blank = _blank(plan, data, site)
    statistics, images = blank.statistics, blank.images
    scales = 0 if statistics.scales is None else statistics.scales.nbytes
    whole, means = len(contribution_bytes(blank)), statistics.codes.nbytes + scales
    parts = sum(part.nbytes for part in blank.extra_tensors.values())
    spent = cost(plan, int(data.counts().max()))
    time = f"{duration(spent.multiplications)} on two cores, at most"
    if plan.options is not None:
        time = "not foretold"
    counts = zip(statistics.classes.tolist(), statistics.totals.tolist(), strict=True)
    return [
        ("class means", f"{means:,} bytes, {' x '.join(map(str, statistics.codes.shape))} numbers in {plan.wire}"),
        ("images", f"{images.nbytes():,} bytes, {len(images)} of {' x '.join(map(str, plan.image.shape))}"),
        *([("parts of the method", f"{parts:,} bytes: {', '.join(blank.extra_tensors)}")] if parts else []),
        ("numbers and header", f"{whole - means - images.nbytes() - parts:,} bytes"),
        ("in all", f"{whole:,} bytes"),
        ("classes", ", ".join(f"{plan.classes[y]}: {n}" for y, n in counts)),
        ("raw images", _raw(plan) or "none"),
        ("time", time),
    ]


def _raw(plan: Plan) -> str:
    """What of the plan shows raw images, as a verb with its object; empty for nothing."""
    if not method_of(plan).shows_real_images(plan):
        return ""
    asked = plan.local.method == "random"
    return "asks for real images as they are" if asked else "starts what is sent from real images"


def _blank(plan: Plan, data: ImageSet, site: str) -> Contribution:
    """A contribution of zeros, of exactly the size of the answer."""
    steps, totals = plan.steps_of(site), data.counts()
    present = torch.nonzero(totals).flatten()
    codes, scales = encode(torch.zeros(len(steps), len(present), statistics_width(plan)), plan.wire)
    totals = totals[present]
    batches = totals if plan.batch is None else totals.clamp_max(plan.batch)
    labels = present.repeat_interleave(plan.local.images_sent)
    pixels = torch.zeros(len(labels), *plan.image.shape, dtype=plan.image_dtype)
    statistics = Statistics(torch.tensor(steps, dtype=torch.int64), present, codes, scales, batches, totals)
    parts = {name: torch.zeros(part.shape, dtype=part.dtype) for name, part in contribution_spec(plan).extra.items()}
    return Contribution(site, plan.digest, statistics, ImageSet(pixels, labels, plan.classes), versions(), parts)
