"""Find methods by name; contribute() and distill() call the method that the plan names.

The paper's variants differ only in their settings: LocalDM is CollabDM without statistics, Central
is one site with all the data, and pae stores pae^2 small images in each image. The methods that the
paper compares with have their own options (`options` in the plan) and send their own tensors;
methods with several rounds run all sites together. docs/methods.md compares the methods.

Other packages add methods with `register`, or with an entry point in the group `collabdm.methods`.
"""

import re
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.metadata import entry_points
from typing import Any

from collabdm.documents.contribution import Contribution, ContributionSpec
from collabdm.documents.frozen_model import FrozenModel
from collabdm.documents.outcomes import DistilledModel, DistilledSet, DistilledSteps
from collabdm.documents.plan import METHOD_NAME, Plan
from collabdm.errors import PlanError, did_you_mean
from collabdm.images import ImageSet
from collabdm.matching.embedding_bound import largest_norm
from collabdm.matching.network_size import statistics_width
from collabdm.matching.run_context import RunContext
from collabdm.methods import (
    collabdm,
    coreset,
    dense,
    dosfl,
    dosfl_steps,
    fedavg,
    fedd3,
    gradient_rounds,
    rounds,
)
from collabdm.methods.arguments import check_round_arguments, check_site_arguments
from collabdm.methods.base import (
    Contributions,
    Method,
    Outcome,
    Settings,
    needs_rounds,
    own_settings,
    plan_options,
)

ENTRY_POINTS = "collabdm.methods"

Adapt = Callable[[Settings], Settings]

# --- contribute and distill ----------------------------------------------------------------------


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """Compute a site's answer to a plan; the same plan, data and site give the same bytes.

    Args:
        plan: the plan.
        data: the site's images, of the plan's classes and shape.
        site: the site's name.
        context: device, progress and checkpoints.

    Returns:
        The contribution.

    Raises:
        DataError: the data does not fit the plan.
        PlanError: the name is not in the plan, the method is unknown or needs several rounds, or
            the plan asks for masks.
    """
    check_site_arguments(plan, data, site, context)
    method = one_round_method(plan)
    if plan.masking is not None:
        raise PlanError(
            "a plan with `masking` needs the site's key, and one answer only; found a call without "
            "them: use `collabdm contribute`, or `collabdm.rounds.exchange.contribute_file`"
        )
    return method.contribute(plan, data, site, context)


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> Outcome:
    """Compute the outcome of a round with the plan's method; usually a DistilledSet.

    Args:
        plan: the plan.
        contributions: the contributions, in any order, or a mapping from site names that reads
            them.
        context: device, progress and checkpoints.
        allow_missing: accept a round in which a class is missing at every site.

    Returns:
        The outcome.

    Raises:
        DocumentError: a contribution does not answer the plan, or a class is missing and
            `allow_missing` is False.
        PlanError: the method is unknown or needs several rounds.
    """
    check_round_arguments(plan, contributions, context)
    return one_round_method(plan).distill(plan, contributions, context, allow_missing)


def one_round_method(plan: Plan) -> Method:
    """Find the method of a plan whose sites answer once.

    Raises:
        PlanError: as for `method_of`, or the method needs several rounds.
    """
    method = method_of(plan)
    if method.run_rounds is not None:
        needs_rounds(plan)
    return method


def method_of(plan: Plan) -> Method:
    """Find the method of a plan, and check the plan's options.

    Raises:
        PlanError: this installation does not know the method, the options do not fit it, or its
            contributions cannot be masked as the plan requires.
    """
    method = find_method(plan.method)
    if method.options is not None:
        plan_options(plan, method.options)
    elif plan.options is not None:
        raise PlanError(
            f"`options` should be left out for method {plan.method}, which has none; "
            f"found {plan.options}"
        )
    if plan.masking is not None and (method.distill_merged is None or plan.steps == 0):
        able = [name for name, known in all_methods().items() if known.distill_merged is not None]
        raise PlanError(
            f"`method` should be one of {', '.join(able)} with masks, and `steps` at least 1; "
            f"found {plan.method}, {plan.steps} steps: only statistics can be masked"
        )
    return method


@lru_cache
def contribution_spec(plan: Plan) -> ContributionSpec:
    """Determine the required contents of a contribution to the plan.

    A plan with an unknown method has no extra tensors: contributions can be read, but not used.
    """
    declared = method_of(plan).declare(plan) if plan.method in all_methods() else {}
    return ContributionSpec(plan, statistics_width(plan), declared, largest_norm(plan))


# --- methods by name -----------------------------------------------------------------------------


def find_method(name: str) -> Method:
    """Find a method by its name.

    Raises:
        PlanError: no method has this name.
    """
    methods = all_methods()
    if name not in methods:
        raise PlanError(
            f"`method` should be one of {', '.join(methods)}; found {name!r}"
            f"{did_you_mean(name, methods)}"
        )
    return methods[name]


def all_methods() -> dict[str, Method]:
    """Return all known methods by name, including those of installed packages.

    Raises:
        PlanError: an installed method cannot be loaded.
    """
    load_installed_methods()
    return METHODS


def register(method: Method) -> Method:
    """Add a method of a different package; plans, commands and simulations then find it by name.

    Raises:
        PlanError: a different method has this name, or a plan does not allow the name.
    """
    if re.fullmatch(METHOD_NAME, method.name) is None:
        raise PlanError(
            "the name of a method should be 1 to 32 lower-case letters, digits, '_' or '-', a "
            f"letter first; found {method.name!r}"
        )
    if METHODS.setdefault(method.name, method) is not method:
        raise PlanError(f"method {method.name!r} exists already: choose another name")

    contribution_spec.cache_clear()  # it may contain plans whose method was unknown until now
    return method


@cache
def load_installed_methods() -> tuple[str, ...]:
    """Register the methods of installed packages, found as entry points that name a `Method`.

    Returns:
        The names of the methods.

    Raises:
        PlanError: an entry point cannot be loaded, or does not name a `Method`.
    """
    names = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            method = entry.load()
        except Exception as error:  # a different package may raise anything
            raise PlanError(
                f"method {entry.name!r} of {entry.value} should be importable; it raised "
                f"{error!r}: repair or remove the package"
            ) from error
        if not isinstance(method, Method):
            raise PlanError(
                f"entry point {entry.name!r} should name a collabdm Method; "
                f"found {type(method).__name__}"
            )
        names.append(register(method).name)
    return tuple(names)


# --- this package's methods ----------------------------------------------------------------------


def _collaborative(settings: Settings) -> Settings:
    """Return the settings of CollabDM, unchanged."""
    return settings


def _local(settings: Settings) -> Settings:
    """Turn off statistics and refinement, and by default start from `ipc` real images per class."""
    local = {"images": settings.get("ipc", 10), "start": "real"} | settings.get("local", {})
    return settings | {"steps": 0, "local": local}


def _central(settings: Settings) -> Settings:
    """Use one site with all the data, which runs the steps of both a site and the server."""
    local = dict(settings.get("local", {}))
    passes = settings.get("refinement", {}).get("passes", 1)
    local["steps"] = local.get("steps", 400) + passes * settings.get("steps", 100)

    alone = {"sites": 1, "site_names": None, "fraction": 1.0}
    return _local(settings | alone | {"local": local | {"images": settings.get("ipc", 10)}})


def _plain(adapt: Adapt) -> Adapt:
    """Store one image in each stored image."""
    return lambda settings: adapt(settings | {"pae": 1})


def _with_pae(adapt: Adapt) -> Adapt:
    """Store four small images in each stored image, unless the settings state otherwise."""
    return lambda settings: adapt({"pae": 2} | settings)


def _matching(name: str, adapt: Adapt, pooled: bool = False, masks: bool = False) -> Method:
    """Define a variant of distribution matching; `masks` if its statistics may be masked."""
    return Method(
        name,
        adapt,
        collabdm.contribute,
        collabdm.distill,
        pooled,
        shows_real_images=collabdm.shows_real_images,
        distill_merged=collabdm.distill_merged if masks else None,
    )


def _own_tensors(
    name: str, module: Any, options: type[FrozenModel], outcome: type[Outcome]
) -> Method:
    """Define a one-round method from a module with `declare`, `contribute`, `distill` and so on."""
    return Method(
        name,
        own_settings(name, options),
        module.contribute,
        module.distill,
        options=options,
        declare=module.declare,
        outcome=outcome,
        shows_real_images=module.shows_real_images,
    )


_MEANS = Method(
    "rounds-means",
    rounds.in_rounds("rounds-means", rounds.Means),
    needs_rounds,
    needs_rounds,
    options=rounds.Means,
    run_rounds=rounds.run_means,
)
_GRADIENTS = Method(
    "rounds-gradients",
    rounds.in_rounds("rounds-gradients", gradient_rounds.Gradients),
    needs_rounds,
    needs_rounds,
    options=gradient_rounds.Gradients,
    run_rounds=gradient_rounds.run_gradients,
)
_FEDAVG = Method(
    "fedavg",
    own_settings("fedavg", fedavg.FedAvg),
    needs_rounds,
    needs_rounds,
    options=fedavg.FedAvg,
    outcome=DistilledModel,
    run_rounds=fedavg.run_rounds,
)

_OWN_METHODS = (
    _matching("collabdm", _plain(_collaborative), masks=True),
    _matching("collabdm-pae", _with_pae(_collaborative), masks=True),
    _matching("localdm", _plain(_local)),
    _matching("localdm-pae", _with_pae(_local)),
    _matching("central", _plain(_central), pooled=True),
    _matching("central-pae", _with_pae(_central), pooled=True),
    _own_tensors("coreset", coreset, coreset.Coreset, DistilledSet),
    _own_tensors("fedd3", fedd3, fedd3.FedD3, DistilledSet),
    _own_tensors("dosfl", dosfl, dosfl_steps.Dosfl, DistilledSteps),
    _own_tensors("dense", dense, dense.Dense, DistilledModel),
    _MEANS,
    _GRADIENTS,
    _FEDAVG,
)

#: the methods of this package, and all registered methods, by name
METHODS: dict[str, Method] = {method.name: method for method in _OWN_METHODS}
