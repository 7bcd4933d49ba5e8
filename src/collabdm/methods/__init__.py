"""The methods, by name. A method is two functions, `contribute` and `distill`, and the settings it stands for.

The paper's variants differ in settings only: LocalDM is CollabDM without statistics, Central is one
site that holds everything, pae stores pae^2 small images in each image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from collabdm.errors import PlanError
from collabdm.methods import collabdm as _collabdm
from collabdm.protocol import Contribution, DistilledSet, Plan

Settings = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A way from sites' data to one distilled set.

    `adapt` turns the settings of a plan into the method's own; `pooled` says that one site holds all.
    """

    name: str
    adapt: Callable[[Settings], Settings]
    pooled: bool = False
    contribute: Callable[..., Contribution] = _collabdm.contribute
    distill: Callable[..., DistilledSet] = _collabdm.distill


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


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("collabdm", _plain(_collaborative)),
        Method("collabdm-pae", _with_pae(_collaborative)),
        Method("localdm", _plain(_local)),
        Method("localdm-pae", _with_pae(_local)),
        Method("central", _plain(_central), pooled=True),
        Method("central-pae", _with_pae(_central), pooled=True),
    )
}


def method_of(plan: Plan) -> Method:
    """The method that a plan names. Raises PlanError where this version does not know it."""
    if plan.method not in METHODS:
        raise PlanError(f"`method` should be one of {', '.join(METHODS)}; found {plan.method!r} in the plan")
    return METHODS[plan.method]
