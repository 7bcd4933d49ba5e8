"""The settings of an experiment: one simulated round, and how its outcome is scored.

    digest = SHA-256 of the canonical JSON of all settings

The digest identifies the results. Fields that were added later are omitted from the JSON if they
have no value, so that the digests of earlier experiments stay the same.
"""

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

#: fields of a Plan that a simulation derives from the experiment and its data
DERIVED_PLAN_FIELDS = {
    "classes",
    "flows",
    "image",
    "method",
    "probe",
    "site_names",
    "sites",
}
BASELINES = ("random", "sites", "all")  # rows of the table of results that are not methods
LATER_FIELDS = (
    *("curve", "flows", "test_per_class", "learning_rate", "test_split", "label_column"),
    *("image_column", "class_names", "skip_unreadable"),
)


class Experiment(FrozenModel):
    """One simulated round and how its outcome is scored.

    Attributes:
        data: a data set (see `data.sources`); with `flows`, a table of that schema, or the tables
            of the sites separated by commas.
        method: the method of the round.
        sites: the number of sites.
        beta: the concentration of the Dirichlet split; None splits evenly and at random.
        class_floor: the fewest images of each class at a site, for the Dirichlet split.
        site_column: a column of the data that names each image's site.
        partition: a file with the split, such as partition.json of an earlier simulation.
        per_class: the number of training images of each class; None uses all.
        side: the side that images are resized to, before everything else; None keeps their size.
        plan: settings of `Plan`, except `DERIVED_PLAN_FIELDS`.
        networks: the networks that are trained for the scores.
        trials: the number of times that each of these networks is trained.
        recipe: the name of the recipe that trains the networks (see `scoring.training`).
        epochs: the number of epochs; None uses the recipe's.
        seed: the seed of the split, the plan and the scores.
        compare: further rows of the table: other methods, and `BASELINES`, which are random real
            images, each site alone, and all the data.
        curve: the number of points along the refinement that are scored, by the first network.
        flows: the schema of tables of flows.
        test_per_class: the number of test images of each class, the same for every seed; None uses
            all.
        learning_rate: the learning rate; None uses the recipe's.
        test_split: the split of the test images; None uses the one called test.
        label_column: the column of the labels; None finds it by its usual names.
        image_column: the column of the images; None finds it by its usual names.
        class_names: the names of the label numbers; None uses those of the data.
        skip_unreadable: whether to leave out pictures that cannot be read.
    """

    data: str
    method: str = "collabdm-pae"
    sites: Annotated[int, Field(ge=1, le=100_000)] = 5
    beta: Annotated[float, Field(gt=0)] | None = 0.1
    class_floor: Annotated[int, Field(ge=0)] = 0
    site_column: str | None = None
    partition: str | None = None
    per_class: Annotated[int, Field(ge=1)] | None = None
    side: Annotated[int, Field(ge=8, le=512)] | None = None
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
    test_split: str | None = None
    label_column: str | None = None
    image_column: str | None = None
    class_names: tuple[str, ...] | None = None
    skip_unreadable: bool = False

    @model_serializer(mode="wrap")
    def _without_absent_fields(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = handler(self).items()
        return {name: value for name, value in fields if value or name not in LATER_FIELDS}

    @field_validator("plan")
    @classmethod
    def _in_order(cls, plan: dict[str, Any]) -> dict[str, Any]:
        return _sorted(plan)

    @model_validator(mode="after")
    def _names_exist(self) -> "Experiment":
        methods = all_methods()
        if self.method not in methods:
            raise ValueError(
                f"`method` should be one of {', '.join(methods)}; found {self.method!r}"
            )

        if unknown := sorted(set(self.compare) - set(methods) - set(BASELINES)):
            raise ValueError(
                f"`compare` should be among {', '.join((*BASELINES, *methods))}; "
                f"found {', '.join(map(repr, unknown))}"
            )
        if derived := sorted(set(self.plan) & DERIVED_PLAN_FIELDS):
            raise ValueError(f"`plan` should leave {', '.join(derived)} to the simulation")
        return self

    @model_validator(mode="after")
    def _split_is_consistent(self) -> "Experiment":
        by_column, by_file = self.site_column is not None, self.partition is not None
        if by_column and (by_file or self.per_class is not None):
            raise ValueError(
                "`site_column` should be set without `per_class` and `partition`; found both"
            )
        if self.class_floor and (by_column or by_file or self.beta is None):
            raise ValueError(
                "`class_floor` belongs to the Dirichlet split, that of `beta`; found another split"
            )
        if self.flows is not None and self.side is not None:
            raise ValueError("`side` should be left to the schema of flows; found both")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all settings, which identifies the results."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def evaluation(self) -> EvaluationConfig:
        """Return the networks, trials, recipe and seed of the scores.

        Raises:
            PlanError: a network is not valid.
        """
        own = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        changes = {name: value for name, value in own.items() if value is not None}
        recipe = RECIPES[self.recipe].model_copy(update=changes)

        networks = networks_of(self.networks, network_of(self.plan.get("network", {})))
        return EvaluationConfig(networks, self.trials, recipe, self.seed)


def _sorted(settings: dict[str, Any]) -> dict[str, Any]:
    """Sort settings alphabetically, at all levels."""
    return {
        key: _sorted(value) if isinstance(value, dict) else value
        for key, value in sorted(settings.items())
    }
