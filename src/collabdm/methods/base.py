"""Answers that consist of a method's own parts: no statistics, no local images, the counts of classes alone.

What every method beside CollabDM shares: the settings of a plan that such an answer needs, the check at the
door, the empty statistics that carry n_k^y, all answers by name, and for a method that needs several rounds, what
went to and fro. `OwnImages` and what follows it are for those whose sites send images of a count of their own.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn, TypeVar

import torch
from jaxtyping import Float32, Int64
from pydantic import Field, ValidationError, model_validator
from torch import Tensor

from collabdm.checkpoint import State
from collabdm.documents.contribution import (
    Contribution,
    ContributionSpec,
    Statistics,
    check_contribution,
    check_contributions,
)
from collabdm.documents.extra_tensors import DeclaredTensors, TensorSpec
from collabdm.documents.frozen_model import FrozenModel, Positive, validation_message
from collabdm.documents.outcomes import DistilledModel, DistilledSet, DistilledSteps
from collabdm.documents.plan import Plan
from collabdm.documents.specs import WIRE_DTYPES
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.images import ImageSet, as_uint8
from collabdm.matching.compute import Compute
from collabdm.matching.networks import statistics_width
from collabdm.version import versions

Options = TypeVar("Options", bound=FrozenModel)


def options_of(options: Mapping[str, Any] | None, model: type[Options]) -> Options:
    """A method's own settings, from a plan or from what a person said. Raises PlanError, naming the field."""
    try:
        return model.model_validate_json(json.dumps(options or {}, default=str), strict=True)
    except ValidationError as error:
        raise PlanError(
            "\n".join(line.replace("`", "`options.", 1) for line in validation_message(error).splitlines())
        ) from error


Outcome = DistilledSet | DistilledSteps | DistilledModel


@dataclass(frozen=True)
class Traffic:
    """What a method that needs several rounds sent: bytes from and to each site, over all rounds."""

    rounds: int
    up: dict[str, int]
    down: dict[str, int]


Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


def silent(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


Predictor = Callable[[Tensor], Tensor]  # images in network units -> logits


Watch = Callable[[str, int, Predictor], None]  # what it is, when (an epoch, or 0), and the predictor as it stands now


def unwatched(what: str, when: int, predictor: Predictor) -> None:
    """A predictor on the way that nobody looks at."""


@dataclass(frozen=True)
class Run:
    """How a long part runs: where it computes, who watches, how it resumes and who keeps its states.

    `watch` is shown predictors on the way (an ensemble, a network after each epoch), to score what is not the outcome.
    """

    compute: Compute = Compute()
    progress: Progress = silent
    resume: State | None = None
    keep: Callable[[State], None] = lambda state: None
    watch: Watch = unwatched


Converse = Callable[[Plan, dict[str, ImageSet], Run], tuple[Outcome, Traffic]]


def _no_parts(plan: Plan) -> DeclaredTensors:
    return {}


Settings = dict[str, Any]


def _never(plan: Plan) -> bool:
    return False


@dataclass(frozen=True)
class Method:
    """A way from sites' data to one outcome.

    `adapt` turns the settings of a plan into the method's own; `pooled` says that one site holds all. `options` is
    the model of the method's own settings, `declare` says what parts a contribution has beside statistics and images,
    `outcome` what comes out, `from_real` whether images that are sent are, or begin as, real ones. A method with
    `converse` needs several rounds, and has all sites at hand.
    """

    name: str
    adapt: Callable[[Settings], Settings]
    pooled: bool
    contribute: Callable[..., Contribution]
    distill: Callable[..., Any]
    options: type[FrozenModel] | None = None
    declare: Callable[[Plan], DeclaredTensors] = _no_parts
    outcome: type[Outcome] = DistilledSet
    from_real: Callable[[Plan], bool] = _never
    converse: Converse | None = None


LABEL_BYTES = 8


NOTHING_ELSE: Settings = {"steps": 0, "pae": 1, "local": {"method": "none"}}  # of a plan whose answers are parts


def own_settings(method: str, model: type[FrozenModel]) -> Callable[[Settings], Settings]:
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
    codes = torch.zeros(0, len(present), statistics_width(plan), dtype=WIRE_DTYPES[plan.wire])
    scales = torch.zeros(0, len(present)) if plan.wire == "int8" else None
    statistics = Statistics(steps, present, codes, scales, batches, counts[present])
    nothing = torch.zeros(0, *plan.image.shape, dtype=plan.image_dtype)
    images = ImageSet(nothing, torch.zeros(0, dtype=torch.int64), plan.classes)
    return Contribution(site, plan.digest, statistics, images, versions(), dict(parts))


Contributions = Sequence[Contribution] | Mapping[str, Contribution]  # a mapping may read each when it is asked for


def in_order(
    plan: Plan, contributions: Contributions, declared: DeclaredTensors, allow_missing: bool
) -> list[Contribution]:
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


class OwnImages(FrozenModel):
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
    one = TensorSpec(plan.image_dtype, plan.image.shape).nbytes + LABEL_BYTES
    if options.bytes < one:
        raise PlanError(f"`options.bytes` should be at least {one}, those of an image; found {options.bytes}")
    return options.bytes // one


def images_declared(plan: Plan, k: int) -> DeclaredTensors:
    """k images and their labels, as parts."""
    return {
        "images": TensorSpec(plan.image_dtype, (k, *plan.image.shape)),
        "labels": TensorSpec(torch.int64, (k,)),
    }


def as_sent(plan: Plan, pixels: Float32[Tensor, "k c h w"], labels: Int64[Tensor, " k"]) -> dict[str, Tensor]:
    """Those parts, from pixels in 0 .. 1."""
    return {"images": as_uint8(pixels) if plan.images == "uint8" else pixels, "labels": labels}


def union(plan: Plan, contributions: Contributions, declared: DeclaredTensors, allow_missing: bool) -> DistilledSet:
    """All sites' images, by class. Raises DocumentError as `in_order`."""
    ordered = in_order(plan, contributions, declared, allow_missing)
    labels = torch.cat([c.extra_tensors["labels"] for c in ordered])
    images = torch.cat([c.extra_tensors["images"] for c in ordered])
    order = labels.argsort(stable=True)
    together = ImageSet(images[order], labels[order], plan.classes)
    return DistilledSet(together, plan, holdings(plan, ordered), plan.method, versions())


def needs_rounds(plan: Plan, *_: object, **__: object) -> NoReturn:
    """Stands for `contribute` and `distill` of a method that one message cannot carry."""
    raise PlanError(
        f"`method` should be one that needs a single round; found {plan.method}, whose sites answer again and again: "
        "`collabdm simulate` runs it"
    )


def check_data(plan: Plan, data: ImageSet) -> None:
    """Refuse data that does not fit the plan, before any work. Raises DataError."""
    if data.classes != plan.classes:
        raise DataError(f"classes should be those of the plan, {plan.classes}; found {data.classes}")
    if len(data) == 0:
        raise DataError("a site should hold at least one image of the plan's classes; found none")
    if data.shape != plan.image.shape:
        raise DataError(
            f"images should be (channels, height, width) = {plan.image.shape}, as the plan says; found {data.shape}"
        )


def by_site(plan: Plan, contributions: Contributions) -> Mapping[str, Contribution]:
    """The contributions of a round by site. Raises DocumentError where it is empty, or where two are of one site."""
    if isinstance(contributions, Mapping):
        check_contributions(plan, list(contributions))
        return contributions
    check_contributions(plan, [c.site for c in contributions])
    return {c.site: c for c in contributions}


def checked(plan: Plan, sent: Mapping[str, Contribution], declared: DeclaredTensors) -> Iterator[Contribution]:
    """The contributions one by one, in the order of the sites' names. Raises DocumentError at one that does not answer
    the plan, or has other parts than those declared.
    """
    spec = ContributionSpec(plan, statistics_width(plan), declared)
    for site in sorted(sent):
        contribution = sent[site]
        check_contribution(spec, contribution)
        yield contribution


def check_classes(plan: Plan, totals: Int64[Tensor, " classes"], allow_missing: bool) -> None:
    """Refuse a round where no site has one of the classes, unless `allow_missing`. Raises DocumentError."""
    missing = [name for name, total in zip(plan.classes, totals.tolist(), strict=True) if not total]
    if missing and not allow_missing:
        raise DocumentError(
            f"every class should be at some site; no contribution has {', '.join(missing)}: wait for a site "
            "that has it, or allow the set to go without"
        )


def class_counts(plan: Plan, contribution: Contribution) -> Int64[Tensor, " classes"]:
    """n_k^y: how many images of each class the site holds."""
    counts = torch.zeros(len(plan.classes), dtype=torch.int64)
    counts[contribution.statistics.classes] = contribution.statistics.totals
    return counts
