"""The methods, by name. A method is two functions, `contribute` and `distill`, and the settings it stands for.

The paper's variants differ in settings only: LocalDM is CollabDM without statistics, Central is one
site that holds everything, pae stores pae^2 small images in each image. The systems that the paper compares with
send parts of their own and have settings of their own, `options` in the plan; those that need several rounds are a
conversation instead. What each sends, needs and gives is in docs/methods.md.
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
from collabdm.matching.network_size import statistics_width
from collabdm.matching.run_context import RunContext
from collabdm.methods import collabdm, coreset, dense, dosfl, fedavg, fedd3, rounds
from collabdm.methods.base import (
    Contributions,
    Method,
    Outcome,
    RunRounds,
    Settings,
    needs_rounds,
    own_settings,
    plan_options,
)

ENTRY_POINTS = "collabdm.methods"


def _collaborative(settings: Settings) -> Settings:
    return settings


def _local(settings: Settings) -> Settings:
    """No statistics; every site sends a whole set, since nothing refines a class that few sites hold."""
    local = {"images": settings.get("ipc", 10)} | settings.get("local", {})
    return settings | {"steps": 0, "local": local}


def _central(settings: Settings) -> Settings:
    """The steps that sites and server would have made, all at the one site."""
    local = dict(settings.get("local", {}))
    passes = settings.get("refinement", {}).get("passes", 1)
    local["steps"] = local.get("steps", 400) + passes * settings.get("steps", 100)
    alone = {"sites": 1, "site_names": None, "fraction": 1.0}
    return _local(settings | alone | {"local": local | {"images": settings.get("ipc", 10)}})


def _with_pae(adapt: Callable[[Settings], Settings]) -> Callable[[Settings], Settings]:
    return lambda settings: adapt({"pae": 2} | settings)


def _plain(adapt: Callable[[Settings], Settings]) -> Callable[[Settings], Settings]:
    return lambda settings: adapt(settings | {"pae": 1})


def _matching(name: str, adapt: Callable[[Settings], Settings], pooled: bool = False) -> Method:
    """A variant of distribution matching."""
    return Method(
        name,
        adapt,
        collabdm.contribute,
        collabdm.distill,
        pooled,
        shows_real_images=collabdm.shows_real_images,
    )


def _own_tensors(
    name: str, module: Any, options: type[FrozenModel], outcome: type[Outcome]
) -> Method:
    """A method of one round whose file has `declare`, `shows_real_images`, `contribute` and `distill`."""
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


def _many_rounds(
    name: str,
    run_rounds: RunRounds,
    options: type[FrozenModel],
    outcome: type[Outcome],
    adapt: Callable[[Settings], Settings],
) -> Method:
    """A method of several rounds."""
    return Method(
        name,
        adapt,
        needs_rounds,
        needs_rounds,
        options=options,
        outcome=outcome,
        run_rounds=run_rounds,
    )


_OURS = (
    _matching("collabdm", _plain(_collaborative)),
    _matching("collabdm-pae", _with_pae(_collaborative)),
    _matching("localdm", _plain(_local)),
    _matching("localdm-pae", _with_pae(_local)),
    _matching("central", _plain(_central), pooled=True),
    _matching("central-pae", _with_pae(_central), pooled=True),
    _own_tensors("coreset", coreset, coreset.Coreset, DistilledSet),
    _own_tensors("fedd3", fedd3, fedd3.FedD3, DistilledSet),
    _own_tensors("dosfl", dosfl, dosfl.Dosfl, DistilledSteps),
    _own_tensors("dense", dense, dense.Dense, DistilledModel),
    _many_rounds(
        "rounds-means",
        rounds.run_means,
        rounds.Means,
        DistilledSet,
        rounds.in_rounds("rounds-means", rounds.Means),
    ),
    _many_rounds(
        "rounds-gradients",
        rounds.run_gradients,
        rounds.Gradients,
        DistilledSet,
        rounds.in_rounds("rounds-gradients", rounds.Gradients),
    ),
    _many_rounds(
        "fedavg",
        fedavg.run_rounds,
        fedavg.FedAvg,
        DistilledModel,
        own_settings("fedavg", fedavg.FedAvg),
    ),
)

#: our methods, and those that were registered, by name
METHODS: dict[str, Method] = {method.name: method for method in _OURS}


def register(method: Method) -> Method:
    """Add a method of another package; plans, commands and simulations then know it by its name.

    Raises:
        PlanError: another method has the name, or the name cannot stand in a plan.
    """
    if re.fullmatch(METHOD_NAME, method.name) is None:
        raise PlanError(
            "the name of a method should be 1 to 32 lower-case letters, digits, '_' or '-', a letter "
            f"first; found {method.name!r}"
        )
    if METHODS.setdefault(method.name, method) is not method:
        raise PlanError(f"method {method.name!r} exists already: choose another name")
    return method


@cache
def load_installed_methods() -> tuple[str, ...]:
    """Register the methods of installed packages, the entry points of the group `collabdm.methods`.

    Each entry point names a `Method`.

    Returns:
        The names of the methods.

    Raises:
        PlanError: an entry point cannot be loaded, or names something else.
    """
    names = []
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            method = entry.load()
        except Exception as error:  # whatever a foreign package raises
            raise PlanError(
                f"method {entry.name!r} of {entry.value} should be importable; it raised {error!r}: "
                "repair or remove the package"
            ) from error
        if not isinstance(method, Method):
            raise PlanError(
                f"entry point {entry.name!r} should name a collabdm Method; found {type(method).__name__}"
            )
        names.append(register(method).name)
    return tuple(names)


def all_methods() -> dict[str, Method]:
    """Every known method by name, those of installed packages included."""
    load_installed_methods()
    return METHODS


def find_method(name: str) -> Method:
    """The method of a name.

    Raises:
        PlanError: no method has the name.
    """
    methods = all_methods()
    if name not in methods:
        nearest = did_you_mean(name, methods)
        raise PlanError(f"`method` should be one of {', '.join(methods)}; found {name!r}{nearest}")
    return methods[name]


def method_of(plan: Plan) -> Method:
    """The method that a plan names, its options checked.

    Raises:
        PlanError: this installation does not know the method, or its options do not fit.
    """
    method = find_method(plan.method)
    if method.options is not None:
        plan_options(plan, method.options)
    elif plan.options is not None:
        raise PlanError(
            f"`options` should be left out for method {plan.method}, which has none; found {plan.options}"
        )
    return method


def one_round_method(plan: Plan) -> Method:
    """The method of a plan whose sites answer once.

    Raises:
        PlanError: as `method_of`, and where the method needs several rounds.
    """
    method = method_of(plan)
    if method.run_rounds is not None:
        needs_rounds(plan)
    return method


@lru_cache
def contribution_spec(plan: Plan) -> ContributionSpec:
    """The contents of a contribution to the plan."""
    declared = method_of(plan).declare(plan) if plan.method in all_methods() else {}
    return ContributionSpec(plan, statistics_width(plan), declared)


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """One site's answer to a plan, by the plan's method. The same arguments give the same bytes.

    Args:
        plan: the plan.
        data: the site's images, of the plan's classes and shape.
        site: the site's name.
        context: device, progress and checkpoints.

    Returns:
        The contribution.

    Raises:
        DataError: the data does not fit the plan.
        PlanError: the name is not in the plan, or the method is unknown or needs several rounds.
    """
    return one_round_method(plan).contribute(plan, data, site, context)


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> Outcome:
    """The outcome of a round, by the plan's method: most often a DistilledSet.

    Args:
        plan: the plan.
        contributions: the contributions, in any order, or a mapping from site names that reads them.
        context: device, progress and checkpoints.
        allow_missing: accept a round in which no site has one of the classes.

    Returns:
        The outcome.

    Raises:
        DocumentError: a contribution does not answer the plan, or a class is missing.
        PlanError: the method is unknown or needs several rounds.
    """
    return one_round_method(plan).distill(plan, contributions, context, allow_missing)
