"""Answers that consist of a method's own parts: no statistics, no local images, the counts of classes alone.

What every method beside CollabDM shares: the settings of a plan that such an answer needs, the check at the
door, the empty statistics that carry n_k^y, all answers by name, and for a method that needs several rounds, what
went to and fro. `OwnImages` and what follows it are for those whose sites send images of a count of their own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import torch
from jaxtyping import Float32, Int64
from pydantic import Field, model_validator
from torch import Tensor

from collabdm.errors import PlanError
from collabdm.images import ImageSet, as_uint8
from collabdm.methods.collabdm import Contributions, by_site, check_classes, check_data, checked, class_counts
from collabdm.parts import Declared, PartSpec
from collabdm.planning import options_of
from collabdm.protocol import Contribution, DistilledSet, Part, Plan, Positive
from collabdm.statistics import WIRE_DTYPES, Statistics
from collabdm.version import versions

Settings = dict[str, Any]

LABEL_BYTES = 8
NOTHING_ELSE: Settings = {"steps": 0, "pae": 1, "local": {"method": "none"}}  # of a plan whose answers are parts


@dataclass(frozen=True)
class Traffic:
    """What a method that needs several rounds sent: bytes from and to each site, over all rounds."""

    rounds: int
    up: dict[str, int]
    down: dict[str, int]


def own_settings(method: str, model: type[Part]) -> Callable[[Settings], Settings]:
    """How a method turns the settings of a plan into its own; `options` are filled in and checked."""

    def adapt(settings: Settings) -> Settings:
        options = options_of(settings.get("options"), model).model_dump(mode="json")
        return settings | NOTHING_ELSE | {"method": method, "options": options}

    return adapt


def check_answer(plan: Plan, data: ImageSet, site: str) -> None:
    """Refuse data, a name or a plan that do not fit, before any work. Raises DataError or PlanError."""
    check_data(plan, data)
    plan.check_site(site)
    if plan.steps or plan.pae != 1 or plan.local.method != "none":
        raise PlanError(
            f"`steps` should be 0, `pae` 1 and `local.method` none, for method {plan.method} sends none of these; "
            f"found {plan.steps}, {plan.pae} and {plan.local.method}"
        )


def answer(plan: Plan, data: ImageSet, site: str, parts: Mapping[str, Tensor]) -> Contribution:
    """A contribution of parts, and of how many images of each class the site holds."""
    counts = data.counts()
    present = torch.nonzero(counts).flatten()
    batches = counts[present] if plan.batch is None else counts[present].clamp_max(plan.batch)
    steps = torch.zeros(0, dtype=torch.int64)
    codes = torch.zeros(0, len(present), plan.width, dtype=WIRE_DTYPES[plan.wire])
    scales = torch.zeros(0, len(present)) if plan.wire == "int8" else None
    statistics = Statistics(steps, present, codes, scales, batches, counts[present])
    nothing = torch.zeros(0, *plan.image.shape, dtype=getattr(torch, plan.images))
    images = ImageSet(nothing, torch.zeros(0, dtype=torch.int64), plan.classes)
    return Contribution(site, plan.digest, statistics, images, versions(), dict(parts))


def in_order(plan: Plan, contributions: Contributions, declared: Declared, allow_missing: bool) -> list[Contribution]:
    """All contributions by site name, in memory. Raises DocumentError where one does not answer the plan or has other
    parts than those declared, or where no site has one of the classes (unless `allow_missing`).
    """
    ordered = list(checked(plan, by_site(plan, contributions), declared))
    check_classes(plan, torch.stack([class_counts(plan, c) for c in ordered]).sum(0), allow_missing)
    return ordered


def holdings(plan: Plan, contributions: Sequence[Contribution]) -> dict[str, list[int]]:
    """The images of each class that each site holds."""
    return {c.site: class_counts(plan, c).tolist() for c in contributions}


def balanced(images: int, present: Sequence[int]) -> list[int]:
    """Labels, ascending: `images` over the classes present as evenly as can be, the first ones get one more.

    >>> balanced(5, [0, 3])
    [0, 0, 0, 3, 3]
    """
    each, more = divmod(images, len(present))
    return [y for rank, y in enumerate(present) for _ in range(each + (rank < more))]


class OwnImages(Part):
    """How many images each site sends: `images`; or as many as `bytes` hold; or an equal share of the set."""

    images: Positive | None = None
    bytes: Annotated[int, Field(ge=1, le=2**40)] | None = None

    @model_validator(mode="after")
    def _one_count(self) -> "OwnImages":
        if self.images is not None and self.bytes is not None:
            raise ValueError("either `images` or `bytes` should be said; found both")
        return self


def images_sent(plan: Plan, options: OwnImages) -> int:
    """k: how many images each site sends. Raises PlanError where the options leave room for none."""
    if options.bytes is None:
        return options.images or math.ceil(plan.ipc * len(plan.classes) / plan.sites)
    one = PartSpec(getattr(torch, plan.images), plan.image.shape).nbytes + LABEL_BYTES
    if options.bytes < one:
        raise PlanError(f"`options.bytes` should be at least {one}, those of an image; found {options.bytes}")
    return options.bytes // one


def images_declared(plan: Plan, k: int) -> Declared:
    """k images and their labels, as parts."""
    return {
        "images": PartSpec(getattr(torch, plan.images), (k, *plan.image.shape)),
        "labels": PartSpec(torch.int64, (k,)),
    }


def as_sent(plan: Plan, pixels: Float32[Tensor, "k c h w"], labels: Int64[Tensor, " k"]) -> dict[str, Tensor]:
    """Those parts, from pixels in 0 .. 1."""
    return {"images": as_uint8(pixels) if plan.images == "uint8" else pixels, "labels": labels}


def union(plan: Plan, contributions: Contributions, declared: Declared, allow_missing: bool) -> DistilledSet:
    """All sites' images, by class. Raises DocumentError as `in_order`."""
    ordered = in_order(plan, contributions, declared, allow_missing)
    labels = torch.cat([c.parts["labels"] for c in ordered])
    images = torch.cat([c.parts["images"] for c in ordered])
    order = labels.argsort(stable=True)
    together = ImageSet(images[order], labels[order], plan.classes)
    return DistilledSet(together, plan, holdings(plan, ordered), plan.method, versions())


def needs_rounds(plan: Plan, *_: object, **__: object) -> NoReturn:
    """Stands for `contribute` and `distill` of a method that one message cannot carry."""
    raise PlanError(
        f"`method` should be one that needs a single round; found {plan.method}, whose sites answer again and again: "
        "`collabdm simulate` runs it"
    )
