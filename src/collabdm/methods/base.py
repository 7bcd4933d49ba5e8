"""What the methods share: the type `Method`, its options, and checks of data and contributions.

A method is a file of this package, or of a different package (`registry`), with two functions:

    contribute(plan, data, site, context) -> Contribution
    distill(plan, contributions, context, allow_missing) -> Outcome

A method that sends neither statistics nor local images sends its own tensors: it declares their
names, types and shapes (`declare`), and `answer` packs them together with the class counts.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float32, Int64
from pydantic import ValidationError
from torch import Tensor

from collabdm.data.flows.rows import snapped_images
from collabdm.documents.contribution import (
    CheckedContributions,
    Contribution,
    ContributionSpec,
    Statistics,
    check_contribution,
    check_contributions,
    stated_counts,
)
from collabdm.documents.extra_tensors import DeclaredTensors
from collabdm.documents.frozen_model import FrozenModel, validation_message
from collabdm.documents.outcomes import DistilledModel, DistilledSet, DistilledSteps
from collabdm.documents.plan import Plan
from collabdm.documents.specs import WIRE_DTYPES
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.images import ImageSet, Pixels, as_uint8
from collabdm.matching.embedding_bound import largest_norm
from collabdm.matching.network_size import statistics_width
from collabdm.matching.run_context import RunContext
from collabdm.seeds import derive
from collabdm.version import versions

Settings = dict[str, Any]
Options = TypeVar("Options", bound=FrozenModel)
Outcome = DistilledSet | DistilledSteps | DistilledModel
Contributions = (
    Sequence[Contribution] | Mapping[str, Contribution]
)  # a mapping may read them lazily

#: the settings of a plan whose contributions contain only the extra tensors of the method
OWN_TENSORS_ONLY: Settings = {"steps": 0, "pae": 1, "local": {"method": "none"}}


@dataclass(frozen=True)
class Traffic:
    """The traffic of all rounds of a method: the bytes from (`up`) and to (`down`) each site."""

    rounds: int
    up: dict[str, int]
    down: dict[str, int]


@runtime_checkable  # the tests check signatures
class Contribute(Protocol):
    """The type of `contribute`, which computes one site's answer to a plan."""

    def __call__(
        self, plan: Plan, data: ImageSet, site: str = ..., context: RunContext = ...
    ) -> Contribution:
        """Compute the contribution; the same plan, data and site give the same bytes."""


@runtime_checkable
class Distill(Protocol):
    """The type of `distill`, which computes the outcome of a round."""

    def __call__(
        self,
        plan: Plan,
        contributions: Contributions,
        context: RunContext = ...,
        allow_missing: bool = ...,
    ) -> Outcome:
        """Compute the outcome; the order of the contributions does not matter."""


@runtime_checkable
class RunRounds(Protocol):
    """The type of `run_rounds`, which runs all rounds with access to every site's data."""

    def __call__(
        self, plan: Plan, sites: dict[str, ImageSet], context: RunContext = ...
    ) -> tuple[Outcome, Traffic]:
        """Run the rounds, and return the outcome and the traffic that they caused."""


def declare_nothing(plan: Plan) -> DeclaredTensors:
    """Declare no extra tensors."""
    return {}


def shows_no_real_images(plan: Plan) -> bool:
    """Return False, for methods that send no images."""
    return False


@dataclass(frozen=True)
class Method:
    """A method: how the data of the sites becomes one outcome.

    Attributes:
        name: its name in plans.
        adapt: converts the settings of a plan into the method's own.
        contribute: computes the contribution of a site.
        distill: computes the outcome at the server.
        pooled: whether one site has all the data.
        options: the model of the method's own settings, `Plan.options`; None if it has no settings.
        declare: declares the extra tensors of a contribution to a plan.
        outcome: the type of the outcome.
        shows_real_images: whether the images sent for a plan are real images, or start from them.
        run_rounds: runs a method that needs several rounds; `contribute` and `distill` then raise
            PlanError.
        distill_merged: computes the outcome of a round with masks, from the plan, the merged
            statistics, the names of the sites, the context and `allow_missing`; None if the
            contributions are not statistics, so that they cannot be masked.
    """

    name: str
    adapt: Callable[[Settings], Settings]
    contribute: Contribute
    distill: Distill
    pooled: bool = False
    options: type[FrozenModel] | None = None
    declare: Callable[[Plan], DeclaredTensors] = declare_nothing
    outcome: type[Outcome] = DistilledSet
    shows_real_images: Callable[[Plan], bool] = shows_no_real_images
    run_rounds: RunRounds | None = None
    distill_merged: Callable[..., Outcome] | None = None


# --- settings ----------------------------------------------------------------------------------


def parse_options(options: Mapping[str, Any] | None, model: type[Options]) -> Options:
    """Parse a method's own settings from plain values.

    Raises:
        PlanError: a value does not fit; the message names the field.
    """
    try:
        return model.model_validate_json(json.dumps(options or {}, default=str), strict=True)
    except ValidationError as error:
        lines = validation_message(error).splitlines()
        raise PlanError("\n".join(line.replace("`", "`options.", 1) for line in lines)) from error


@lru_cache
def plan_options(plan: Plan, model: type[Options]) -> Options:
    """Return the method's own settings in a plan, parsed once for each plan.

    Raises:
        PlanError: a value does not fit; the message names the field.
    """
    return parse_options(plan.options, model)


def own_settings(method: str, model: type[FrozenModel]) -> Callable[[Settings], Settings]:
    """Create `Method.adapt` for a method with options: it checks them and fills in defaults."""

    def adapt(settings: Settings) -> Settings:
        options = parse_options(settings.get("options"), model).model_dump(mode="json")
        return settings | OWN_TENSORS_ONLY | {"method": method, "options": options}

    return adapt


def needs_rounds(plan: Plan, *_: object, **__: object) -> NoReturn:
    """Raise PlanError: a stand-in for `contribute` and `distill` of a method with many rounds."""
    raise PlanError(
        f"`method` should be one that needs a single round; found {plan.method}, whose sites "
        "answer in every round: `collabdm simulate` runs it"
    )


# --- a site ------------------------------------------------------------------------------------


def check_data(plan: Plan, data: ImageSet) -> None:
    """Check, before any work, that a site's data fits the plan.

    Raises:
        DataError: the classes or the image shape differ from the plan's, or there are no images.
    """
    if data.classes != plan.classes:
        raise DataError(
            f"classes should be those of the plan, {plan.classes}; found {data.classes}"
        )
    if len(data) == 0:
        raise DataError("a site should hold at least one image of the plan's classes; found none")
    if data.shape != plan.image.shape:
        raise DataError(
            f"images should be (channels, height, width) = {plan.image.shape}, as in the plan; "
            f"found {data.shape}"
        )


def site_seed(plan: Plan, site: str, context: RunContext) -> int:
    """Return the seed of a site's own draws: that of the context, or one that anyone can derive.

    Args:
        plan: the plan.
        site: the site's name.
        context: the context, with the site's secret seed if it has one.

    Returns:
        The seed.
    """
    if context.site_seed is not None:
        return context.site_seed
    return derive(plan.seed, "site", site)


def check_answer(plan: Plan, data: ImageSet, site: str) -> None:
    """Check, before any work, that extra tensors and class counts suffice to answer the plan.

    Args:
        plan: the plan.
        data: the site's images.
        site: the site's name.

    Raises:
        DataError: the data does not fit the plan.
        PlanError: the name is not in the plan, or the plan asks for statistics or local images.
    """
    check_data(plan, data)
    plan.check_site(site)
    if plan.steps or plan.pae != 1 or plan.local.method != "none":
        raise PlanError(
            f"`steps` should be 0, `pae` 1 and `local.method` none for method {plan.method}, which "
            f"sends no statistics and no local images; found {plan.steps}, {plan.pae} and "
            f"{plan.local.method}"
        )


def answer(plan: Plan, data: ImageSet, site: str, tensors: Mapping[str, Tensor]) -> Contribution:
    """Build a contribution of extra tensors and the site's number of images of each class.

    Args:
        plan: the plan.
        data: the site's images; only their counts are sent.
        site: the site's name.
        tensors: the declared tensors, on the CPU.

    Returns:
        The contribution.
    """
    counts = data.counts()
    present = torch.nonzero(counts).flatten()
    batches, totals = stated_counts(plan, counts[present])

    no_steps = torch.zeros(0, dtype=torch.int64)
    codes = torch.zeros(0, len(present), statistics_width(plan), dtype=WIRE_DTYPES[plan.wire])
    scales = torch.zeros(0, len(present)) if plan.wire == "int8" else None
    statistics = Statistics(no_steps, present, codes, scales, batches, totals)

    no_pixels = torch.zeros(0, *plan.image.shape, dtype=plan.image_dtype)
    no_images = ImageSet(no_pixels, torch.zeros(0, dtype=torch.int64), plan.classes)
    return Contribution(site, plan.digest, statistics, no_images, versions(), dict(tensors))


def stored_pixels(plan: Plan, pixels: Float32[Tensor, "*n c h w"]) -> Pixels:
    """Convert pixels in 0 .. 1 to the plan's storage: uint8, float32, or rows of its schema."""
    if plan.flows is not None and plan.flows.as_rows:
        return snapped_images(plan.flows, pixels)
    return as_uint8(pixels) if plan.images == "uint8" else pixels


# --- the server --------------------------------------------------------------------------------


def by_site(plan: Plan, contributions: Contributions) -> Mapping[str, Contribution]:
    """Return the contributions of a round by the names of their sites.

    Raises:
        DocumentError: there are no contributions, a site sent two, or there are more contributions
            than the plan has sites.
    """
    if isinstance(contributions, Mapping):
        check_contributions(plan, list(contributions))
        return contributions
    check_contributions(plan, [contribution.site for contribution in contributions])
    return {contribution.site: contribution for contribution in contributions}


def checked(
    plan: Plan, contributions: Contributions, declared: DeclaredTensors
) -> Iterator[Contribution]:
    """Yield the contributions in the order of the sites' names, each checked once.

    Args:
        plan: the plan.
        contributions: the contributions; a mapping is read once per site.
        declared: the extra tensors that the method declares.

    Yields:
        The contributions that answer the plan.

    Raises:
        DocumentError: some contributions do not answer the plan; it is raised after the last
            contribution, and its message names all of them.
    """
    if isinstance(contributions, CheckedContributions) and contributions.plan == plan:
        yield from (contributions[site] for site in sorted(contributions))
        return

    spec = ContributionSpec(plan, statistics_width(plan), declared, largest_norm(plan))
    sent, faults = by_site(plan, contributions), []

    for site in sorted(sent):
        try:
            contribution = sent[site]
            check_contribution(spec, contribution)
        except DocumentError as error:
            faults.append(str(error))
        else:
            yield contribution

    if faults:
        raise DocumentError("\n".join(faults))


def check_classes(plan: Plan, totals: Int64[Tensor, " classes"], allow_missing: bool) -> None:
    """Check that every class is present at some site.

    Args:
        plan: the plan.
        totals: the images of each class over all sites.
        allow_missing: accept a set without the missing classes.

    Raises:
        DocumentError: a class is missing, and `allow_missing` is false.
    """
    missing = [y for y, total in zip(plan.classes, totals.tolist(), strict=True) if not total]
    if missing and not allow_missing:
        raise DocumentError(
            f"every class should be at some site; no contribution has {', '.join(missing)}: wait "
            "for a site that has it, or allow the set to go without"
        )


def checked_in_order(
    plan: Plan, contributions: Contributions, declared: DeclaredTensors, allow_missing: bool
) -> list[Contribution]:
    """Check all contributions and load them into memory, ordered by site name.

    Args:
        plan: the plan.
        contributions: the contributions, in any order.
        declared: the extra tensors that the method declares.
        allow_missing: accept a round in which a class is missing at every site.

    Returns:
        The contributions.

    Raises:
        DocumentError: a contribution does not answer the plan, or a class is missing and
            `allow_missing` is False.
    """
    ordered = list(checked(plan, contributions, declared))
    totals = torch.stack([class_counts(plan, contribution) for contribution in ordered]).sum(0)
    check_classes(plan, totals, allow_missing)
    return ordered


def class_counts(plan: Plan, contribution: Contribution) -> Int64[Tensor, " classes"]:
    """Return the number of images of each class at the site."""
    counts = torch.zeros(len(plan.classes), dtype=torch.int64)
    counts[contribution.statistics.classes] = contribution.statistics.totals
    return counts


def site_counts(plan: Plan, contributions: Sequence[Contribution]) -> dict[str, list[int]]:
    """Return the number of images of each class at each site, by site name."""
    return {
        contribution.site: class_counts(plan, contribution).tolist()
        for contribution in contributions
    }
