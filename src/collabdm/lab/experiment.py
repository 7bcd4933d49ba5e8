"""TODO lab.experiment."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_serializer, model_validator

from collabdm.documents.canonical_json import canonical_json
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.frozen_model import FrozenModel
from collabdm.methods.registry import all_methods
from collabdm.planning.settings import network_of, networks_of
from collabdm.scoring.evaluation import EvaluationConfig
from collabdm.scoring.training import RECIPES
from collabdm.seeds import SEED_LIMIT

OF_THE_SIMULATION = {
    "classes",
    "flows",
    "image",
    "method",
    "probe",
    "site_names",
    "sites",
}  # fields of a Plan that it fills


LINES = ("random", "sites", "all")  # of the table of results, beside the methods


class Experiment(FrozenModel):
    """One simulated round and how it is scored. `plan` holds settings of `Plan`; `beta=None` splits IID;
    `side` resizes the images first.

    `compare` names further lines of the table: other methods, `sites` (each alone), `random`, `all`. `curve` points
    along the refinement are scored too, by the first network. With `flows`, `data` is a table of that schema, or the
    tables of the sites by commas. `test_per_class` takes so many test images of each class, the same for every seed.
    `epochs` and `learning_rate` replace the recipe's own.
    """

    data: str
    method: str = "collabdm-pae"
    sites: Annotated[int, Field(ge=1, le=100_000)] = 5
    beta: Annotated[float, Field(gt=0)] | None = 0.1
    class_floor: Annotated[int, Field(ge=0)] = 0
    site_column: str | None = None
    partition: str | None = None
    per_class: Annotated[int, Field(ge=1)] | None = None
    side: Annotated[int, Field(ge=8, le=128)] | None = None
    plan: dict[str, Any] = Field(default_factory=dict)
    networks: tuple[str, ...] = ("ConvNet",)
    trials: Annotated[int, Field(ge=1, le=10_000)] = 5
    recipe: Literal["paper", "short", "strong"] = "paper"
    epochs: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT)] = 0
    compare: tuple[str, ...] = ("localdm", "random", "sites")
    curve: Annotated[int, Field(ge=0, le=1000)] = 0
    flows: FlowSchema | None = None
    test_per_class: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        later = ("curve", "flows", "test_per_class", "learning_rate")  # older digests stay
        return {k: v for k, v in handler(self).items() if v or k not in later}

    @field_validator("plan")
    @classmethod
    def _by_name(cls, plan: dict[str, Any]) -> dict[str, Any]:
        return _sorted(plan)

    @model_validator(mode="after")
    def _parts_agree(self) -> "Experiment":
        methods = all_methods()
        if self.method not in methods:
            raise ValueError(
                f"`method` should be one of {', '.join(methods)}; found {self.method!r}"
            )
        if unknown := sorted(set(self.compare) - set(methods) - set(LINES)):
            raise ValueError(
                f"`compare` should be of {', '.join((*LINES, *methods))}; "
                f"found {', '.join(map(repr, unknown))}"
            )
        if fixed := sorted(set(self.plan) & OF_THE_SIMULATION):
            raise ValueError(f"`plan` should leave {', '.join(fixed)} to the simulation")
        if self.site_column is not None and (self.per_class is not None or self.partition is not None):
            raise ValueError("`site_column` should stand without `per_class` and `partition`; found both")
        if self.class_floor and (self.beta is None or self.site_column is not None or self.partition is not None):
            raise ValueError("`class_floor` belongs to the Dirichlet split, that of `beta`; found another split")
        if self.flows is not None and self.side is not None:
            raise ValueError("`side` should be left to the schema of flows; found both")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: what the results of the experiment are filed under."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def evaluation(self) -> EvaluationConfig:
        """Networks, trials, recipe and seed of its scores."""
        own = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        recipe = RECIPES[self.recipe].model_copy(update={k: v for k, v in own.items() if v is not None})
        specs = networks_of(self.networks, network_of(self.plan.get("network", {})))
        return EvaluationConfig(specs, self.trials, recipe, self.seed)


def _sorted(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings in alphabetical order, whatever order they were said in."""
    return {key: _sorted(value) if isinstance(value, dict) else value for key, value in sorted(settings.items())}
