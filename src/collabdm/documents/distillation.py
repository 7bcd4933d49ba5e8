"""The settings of distillation in a Plan: matching, the images of a site, the server's refinement.

References: docs/format.md, "Plan"; B. Zhao, H. Bilen, "Dataset condensation with distribution
matching", WACV 2023.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from collabdm.documents.frozen_model import (
    ExtendedModel,
    FrozenModel,
    LearningRate,
    Positive,
)

AVERAGE_OF = 50  # images in a group of local averages, at least


class Matching(FrozenModel):
    """The settings of distribution matching.

    `spread` weights an additional loss term that matches the standard deviation of each embedding
    dimension within each class. It affects only local distillation, because the statistics contain
    only means.
    """

    optimiser: Literal["sgd", "adam"] = "sgd"
    learning_rate: LearningRate = 10.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    schedule: Literal["constant", "cosine"] = "constant"
    spread: Annotated[float, Field(ge=0, le=100)] = 0.0


class Local(ExtendedModel):
    """The images that a site sends with its statistics: `images` for each of its classes.

    - `method`: `dm` distils images from the site's data by distribution matching; `averages` sends
      averages of groups of similar images; `random` sends random real images; `none` sends nothing.
    - `start`: the images that `dm` starts from: `noise`, which reveals no real image, or `real`
      images of the site, which can be recognised in the images sent. If the sites send too few
      images of a class, the server adds slightly moved copies (`real`) or noise (`noise`, or if no
      images of the class were sent).
    - `average_of`: the fewest images in a group, for `averages` only; 50 unless it is set.
    """

    extensions: ClassVar[tuple[str, ...]] = ("average_of",)

    method: Literal["dm", "averages", "random", "none"] = "dm"
    start: Literal["real", "noise"] = "noise"
    images: Annotated[int, Field(ge=0, le=10**6)] = 0
    steps: Annotated[int, Field(ge=0, le=10**6)] = 400
    batch: Positive = 256
    matching: Matching = Matching(learning_rate=1.0)
    average_of: Annotated[int, Field(ge=2, le=10**6)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _groups_have_a_size(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("method") == "averages":
            return {"average_of": AVERAGE_OF} | settings
        return settings

    @model_validator(mode="after")
    def _only_averages_have_groups(self) -> "Local":
        if (self.average_of is None) == (self.method == "averages"):
            raise ValueError(
                "`average_of` should be set if `method` is averages, and only then; "
                f"found {self.average_of} with {self.method}"
            )
        return self

    @property
    def images_sent(self) -> int:
        """The number of images that a site sends per class; 0 if `method` is `none`."""
        return 0 if self.method == "none" else self.images


class Refinement(FrozenModel):
    """The refinement at the server, which goes through the steps of the Plan `passes` times.

    A step uses `batch` synthetic images of each class; None uses all of them.
    """

    passes: Annotated[int, Field(ge=0, le=1000)] = 1
    batch: Positive | None = None
    matching: Matching = Matching()
