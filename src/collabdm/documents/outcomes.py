"""TODO documents.outcomes."""

from dataclasses import dataclass, field

from jaxtyping import Float32
from torch import Tensor

from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DocumentError
from collabdm.images import ImageSet

DISTILLED_VERSION = 1


STEPS_VERSION = 1


DISTILLED_MODEL_VERSION = 1


@dataclass(frozen=True)
class DistilledSet:
    """The outcome: exactly `ipc` images of every class that some site has.

    `plan` is carried whole, so that the set can be used without any other file. With pae, each
    image holds `plan.pae`^2 small ones: train on `expanded` images.
    """

    images: ImageSet
    plan: Plan
    sites: dict[str, list[int]]
    method: str
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DistilledSteps:
    """An outcome that is a course of training: steps of images with soft labels (logits) and learning rates.

    `images` is (steps, images, channels, height, width), pixels as the plan says; `labels` (steps, images, classes);
    `rates` (steps,). What the course begins from follows from `plan`.
    """

    images: Tensor
    labels: Float32[Tensor, "s m classes"]
    rates: Float32[Tensor, " s"]
    plan: Plan
    sites: dict[str, list[int]]
    method: str
    versions: dict[str, str] = field(default_factory=dict)

    def as_set(self) -> ImageSet:
        """The images as data, by class, each with the class of its largest logit."""
        labels = self.labels.flatten(0, 1).argmax(1)
        order = labels.argsort(stable=True)
        return ImageSet(self.images.flatten(0, 1)[order], labels[order], self.plan.classes)


Weights = dict[str, Tensor]


@dataclass(frozen=True)
class DistilledModel:
    """Weights of one network, for images and classes of `plan`; `sites` as in a DistilledSet."""

    weights: Weights
    spec: NetworkSpec
    plan: Plan
    sites: dict[str, list[int]]
    method: str
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if any(len(held) != len(self.plan.classes) or min(held) < 0 for held in self.sites.values()):
            raise DocumentError(f"each site should have {len(self.plan.classes)} counts, none negative")
