"""One-shot collaborative data distillation: many sites, one small synthetic training set, a single round.

    Plan      seeds a_1 .. a_T, and all that is agreed on               `planning`, `documents.plan`
    site k    S_k  = argmin_S E_psi sum_y |mean_{D_k^y} psi - mean_{S^y} psi|^2   `methods.localdm`
              L_{t,k}^y = mean over D_{t,k}^y of P_t psi_{a_t}(augment_{t,y}(x))  `matching.embedding`
    server    S    <- union of the S_k                                            `methods.collabdm`
              mu_t^y = sum_k n_k^y L_{t,k}^y / sum_k n_k^y            `matching.class_statistics`
              S    <- S - eta grad_S sum_y |mu_t^y - mean_{S^y} P_t psi_{a_t}|^2  `matching.loop`
    anyone    trains on S                                                         `scoring`

psi_a is a network whose weights are drawn from seed a (`matching.networks`, `seeds`), P_t a sketch. Three
functions connect three documents (`documents`), dispatched on the method of the plan (`methods`):

    make_plan(classes, image, ...) -> Plan
    contribute(plan, data, site) -> Contribution
    distill(plan, contributions) -> DistilledSet

Reference: R. Holland, C. Thapa, S. A. Siddiqui, W. Shao, S. Camtepe, "One-shot collaborative data
distillation", 2024.
"""

from collabdm.data.sources import load
from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.outcome_files import read_distilled, write_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.plan_file import read_plan, write_plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import CollabDMError, DataError, DocumentError, PlanError, ProbeError
from collabdm.images import ImageSet
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
from collabdm.version import __version__

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
    "training_set",
    "write_contribution",
    "write_distilled",
    "write_model",
    "write_plan",
]
