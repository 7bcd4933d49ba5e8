"""The outcomes of a round: a set of images, a sequence of training steps, or a trained network.

Each outcome contains its Plan, so that it can be used without any other file, and lists each site's
number of images of each class.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from jaxtyping import Float32
from torch import Tensor

from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DocumentError
from collabdm.images import ImageSet, listed
from collabdm.pictures import as_html

DISTILLED_VERSION = 1
STEPS_VERSION = 1
DISTILLED_MODEL_VERSION = 1

#: precedes the names of the sites whose numbers are known only as a sum, as masks leave them
SUM_OVER = "sum over "

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class DistilledSet:
    """The usual outcome: `ipc` images of every class that at least one site has.

    With pae, each stored image contains `plan.pae`^2 smaller images, which are enlarged for
    training. `sites` lists each site's number of images of each class. `method` names the method
    that made the set, and `versions` the software versions used.
    """

    images: ImageSet
    plan: Plan
    sites: dict[str, list[int]]
    method: str
    versions: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Describe the set in one line."""
        pae = f", each of {self.plan.pae**2} small ones" if self.plan.pae > 1 else ""
        size = " x ".join(map(str, self.plan.image.shape))
        sites = len(contributing_sites(self.sites))
        return (
            f"DistilledSet({len(self.images):,} images of {size}{pae}, "
            f"{listed(self.images.classes)}; {self.method}, {sites} site{'s' * (sites != 1)})"
        )

    def _repr_html_(self) -> str:
        """Show the stored images in a notebook."""
        return as_html(self.images.picture(), repr(self)) if len(self.images) else repr(self)

    def show(self, columns: int = 10) -> None:
        """Open a window with the stored images, at most `columns` of each class."""
        self.images.show(columns)


@dataclass(frozen=True)
class DistilledSteps:
    """A sequence of training steps: images with soft labels (logits), and a learning rate per step.

    `images` has shape (steps, images, channels, height, width) and the Plan's pixel type; `labels`
    has shape (steps, images, classes), and `rates` (steps,). The Plan determines the initial
    weights.
    """

    images: Tensor
    labels: Float32[Tensor, "s m classes"]
    rates: Float32[Tensor, " s"]
    plan: Plan
    sites: dict[str, list[int]]
    method: str
    versions: dict[str, str] = field(default_factory=dict)

    def as_set(self) -> ImageSet:
        """Return the images sorted by class; the class of an image is that of its largest logit."""
        labels = self.labels.flatten(0, 1).argmax(1)
        order = labels.argsort(stable=True)
        return ImageSet(self.images.flatten(0, 1)[order], labels[order], self.plan.classes)


@dataclass(frozen=True)
class DistilledModel:
    """The weights of one network, for the images and classes of the Plan.

    Raises DocumentError unless each site has one count per class, 0 or more.
    """

    weights: Weights
    spec: NetworkSpec
    plan: Plan
    sites: dict[str, list[int]]
    method: str
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_site_counts(self.plan, self.sites)


def sum_over(sites: Iterable[str]) -> str:
    """Return the key of `sites` in an outcome that knows only the sum over several sites.

    >>> sum_over(["north", "east"])
    'sum over east, north'
    """
    return SUM_OVER + ", ".join(sorted(sites))


def contributing_sites(sites: Iterable[str]) -> list[str]:
    """List the sites that contributed to an outcome, from the keys of its `sites`.

    >>> contributing_sites(["sum over east, north"]), contributing_sites(["west"])
    (['east', 'north'], ['west'])
    """
    return [name for key in sites for name in key.removeprefix(SUM_OVER).split(", ")]


def check_site_counts(plan: Plan, sites: dict[str, list[int]]) -> None:
    """Check that every site has one number of images per class. Raises DocumentError."""
    for site, counts in sites.items():
        if len(counts) != len(plan.classes) or min(counts) < 0:
            raise DocumentError(
                f"each site should have {len(plan.classes)} counts, none negative; "
                f"found {counts} for {site!r}"
            )
