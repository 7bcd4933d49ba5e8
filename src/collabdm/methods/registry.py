"""The methods, by name. A method is two functions, `contribute` and `distill`, and the settings it stands for.

The paper's variants differ in settings only: LocalDM is CollabDM without statistics, Central is one
site that holds everything, pae stores pae^2 small images in each image. The systems that the paper compares with
send parts of their own and have settings of their own, `options` in the plan; those that need several rounds are a
conversation instead. What each sends, needs and gives is in docs/methods.md.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from collabdm.documents.contribution import ContributionSpec
from collabdm.documents.frozen_model import FrozenModel
from collabdm.documents.outcomes import DistilledModel, DistilledSet, DistilledSteps
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.matching.networks import statistics_width
from collabdm.methods import collabdm as _collabdm
from collabdm.methods import coreset, dense, dosfl, fedavg, fedd3, rounds
from collabdm.methods.base import Converse, Method, Outcome, Settings, needs_rounds, options_of, own_settings


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
    return Method(name, adapt, pooled, _collabdm.contribute, _collabdm.distill, from_real=_collabdm.from_real)


def _one_round(name: str, module: Any, options: type[FrozenModel], outcome: type[Outcome]) -> Method:
    """A method whose file has `declare`, `from_real`, `contribute` and `distill`."""
    adapt = own_settings(name, options)
    parts = (module.contribute, module.distill, options, module.declare, outcome, module.from_real)
    return Method(name, adapt, False, *parts)


def _many_rounds(
    name: str,
    adapt: Callable[[Settings], Settings],
    converse: Converse,
    options: type[FrozenModel],
    outcome: type[Outcome],
) -> Method:
    return Method(name, adapt, False, needs_rounds, needs_rounds, options, outcome=outcome, converse=converse)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _matching("collabdm", _plain(_collaborative)),
        _matching("collabdm-pae", _with_pae(_collaborative)),
        _matching("localdm", _plain(_local)),
        _matching("localdm-pae", _with_pae(_local)),
        _matching("central", _plain(_central), pooled=True),
        _matching("central-pae", _with_pae(_central), pooled=True),
        _one_round("coreset", coreset, coreset.Coreset, DistilledSet),
        _one_round("fedd3", fedd3, fedd3.FedD3, DistilledSet),
        _one_round("dosfl", dosfl, dosfl.Dosfl, DistilledSteps),
        _one_round("dense", dense, dense.Dense, DistilledModel),
        _many_rounds(
            "rounds-means", rounds.in_rounds("rounds-means", rounds.Means), rounds.converse_means, rounds.Means,
            DistilledSet,
        ),
        _many_rounds(
            "rounds-gradients", rounds.in_rounds("rounds-gradients", rounds.Gradients), rounds.converse_gradients,
            rounds.Gradients, DistilledSet,
        ),
        _many_rounds("fedavg", own_settings("fedavg", fedavg.FedAvg), fedavg.converse, fedavg.FedAvg, DistilledModel),
    )
}  # fmt: skip


def method_of(plan: Plan) -> Method:
    """The method that a plan names. Raises PlanError where this version does not know it, or not its options."""
    if plan.method not in METHODS:
        raise PlanError(f"`method` should be one of {', '.join(METHODS)}; found {plan.method!r} in the plan")
    method = METHODS[plan.method]
    if method.options is not None:
        options_of(plan.options, method.options)
    elif plan.options is not None:
        raise PlanError(f"`options` should be left out for method {plan.method}, which has none; found {plan.options}")
    return method


def one_round(plan: Plan) -> Method:
    """The method of a plan whose sites answer once. Raises PlanError as `method_of`, and where once is not enough."""
    method = method_of(plan)
    if method.converse is not None:
        needs_rounds(plan)
    return method


@lru_cache
def contribution_spec(plan: Plan) -> ContributionSpec:
    """What a contribution to the plan must contain."""
    method = METHODS.get(plan.method)
    return ContributionSpec(plan, statistics_width(plan), {} if method is None else method.declare(plan))
