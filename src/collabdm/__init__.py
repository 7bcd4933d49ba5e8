"""One-shot collaborative data distillation: many sites, one small synthetic training set.

    Plan     seeds a_1 .. a_T and all settings                       `planning`, `documents.plan`
    site k   S_k  = argmin_S E_psi sum_y |mean_{D_k^y} psi - mean_{S^y} psi|^2  `methods.localdm`
             L_{t,k}^y = mean over D_{t,k}^y of P_t psi_{a_t}(augment_{t,y}(x)) `matching.embedding`
    server   S    <- union of the S_k                                          `methods.collabdm`
             mu_t^y = sum_k n_k^y L_{t,k}^y / sum_k n_k^y            `matching.class_statistics`
             S    <- S - eta grad_S sum_y |mu_t^y - mean_{S^y} P_t psi_{a_t}|^2 `matching.loop`
    anyone   trains on S                                                       `scoring`

D_k^y are the n_k^y images of class y at site k, D_{t,k}^y those that it uses in step t, and S^y the
images of class y in the set S. psi_a is a network whose weights are drawn from seed a, and psi one
with random weights (`matching.networks`, `seeds`). P_t is a random projection, the sketch, and eta
the learning rate.

Three functions connect the three documents (`documents`) and call the method that the plan names
(`methods`):

    make_plan(classes, image, ...) -> Plan
    contribute(plan, data, site) -> Contribution
    distill(plan, contributions) -> DistilledSet

The public names are imported on first use, so that `import collabdm` and the command line start
without loading PyTorch.

Reference: R. Holland, C. Thapa, S. A. Siddiqui, W. Shao, S. Camtepe, "One-shot collaborative data
distillation", 2024.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from collabdm.errors import CollabDMError, DataError, DocumentError, PlanError, ProbeError
from collabdm.version import __version__

if TYPE_CHECKING:
    from collabdm.data.sources import load
    from collabdm.documents.contribution import Contribution
    from collabdm.documents.contribution_file import write_contribution
    from collabdm.documents.outcome_files import read_distilled, write_distilled
    from collabdm.documents.outcomes import DistilledSet
    from collabdm.documents.plan import ImageSpec, Plan
    from collabdm.documents.plan_file import read_plan, write_plan
    from collabdm.documents.specs import NetworkSpec
    from collabdm.images import ImageSet
    from collabdm.lab.experiment import Experiment
    from collabdm.lab.simulate import simulate
    from collabdm.matching.compute import Compute, choose_compute
    from collabdm.matching.run_context import RunContext
    from collabdm.methods.base import Method
    from collabdm.methods.registry import METHODS, contribute, distill, register
    from collabdm.planning.make import make_plan, plan_for
    from collabdm.planning.probe import check_probe
    from collabdm.rounds.contributions import read_contribution
    from collabdm.scoring.evaluation import EvaluationConfig, Score, evaluate
    from collabdm.scoring.trained_model import TrainedModel, read_model, write_model
    from collabdm.scoring.training import RECIPES, Recipe, training_set

__all__ = [
    "METHODS",
    "RECIPES",
    "CollabDMError",
    "Compute",
    "Contribution",
    "DataError",
    "DistilledSet",
    "DocumentError",
    "EvaluationConfig",
    "Experiment",
    "ImageSet",
    "ImageSpec",
    "Method",
    "NetworkSpec",
    "Plan",
    "PlanError",
    "ProbeError",
    "Recipe",
    "RunContext",
    "Score",
    "TrainedModel",
    "__version__",
    "check_probe",
    "choose_compute",
    "contribute",
    "distill",
    "evaluate",
    "load",
    "make_plan",
    "plan_for",
    "read_contribution",
    "read_distilled",
    "read_model",
    "read_plan",
    "register",
    "simulate",
    "training_set",
    "write_contribution",
    "write_distilled",
    "write_model",
    "write_plan",
]

#: the module that defines each public name, as in the imports above
_MODULES = {
    "METHODS": "methods.registry",
    "RECIPES": "scoring.training",
    "Compute": "matching.compute",
    "Contribution": "documents.contribution",
    "DistilledSet": "documents.outcomes",
    "EvaluationConfig": "scoring.evaluation",
    "Experiment": "lab.experiment",
    "ImageSet": "images",
    "ImageSpec": "documents.plan",
    "Method": "methods.base",
    "NetworkSpec": "documents.specs",
    "Plan": "documents.plan",
    "Recipe": "scoring.training",
    "RunContext": "matching.run_context",
    "Score": "scoring.evaluation",
    "TrainedModel": "scoring.trained_model",
    "check_probe": "planning.probe",
    "choose_compute": "matching.compute",
    "contribute": "methods.registry",
    "distill": "methods.registry",
    "evaluate": "scoring.evaluation",
    "load": "data.sources",
    "make_plan": "planning.make",
    "plan_for": "planning.make",
    "read_contribution": "rounds.contributions",
    "read_distilled": "documents.outcome_files",
    "read_model": "scoring.trained_model",
    "read_plan": "documents.plan_file",
    "register": "methods.registry",
    "simulate": "lab.simulate",
    "training_set": "scoring.training",
    "write_contribution": "documents.contribution_file",
    "write_distilled": "documents.outcome_files",
    "write_model": "scoring.trained_model",
    "write_plan": "documents.plan_file",
}

#: earlier public names and their replacements
_RENAMED = {"Protocol": "EvaluationConfig", "Run": "RunContext"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name in _RENAMED:
        new = _RENAMED[name]
        message = f"collabdm.{name} was renamed: use collabdm.{new}"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return __getattr__(new)

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List all names, including those that have not been imported yet."""
    return sorted({*globals(), *__all__})
