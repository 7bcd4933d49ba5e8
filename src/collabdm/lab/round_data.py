"""The data of a simulated round: training and test images, and the split over sites.

    experiment  ->  images, or tables of flows  ->  split  ->  {site: training images}

The split is read from a file or from a column of the data, or drawn at random: from a Dirichlet
distribution of classes, or evenly. Data in one table per site is already split.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from collabdm.data.flows.stations import stations
from collabdm.data.partition import Partition, by_column, dirichlet, iid
from collabdm.data.selection import Selection
from collabdm.data.sources import column_values, fit_classes, limit, load_tallied
from collabdm.data.tally import Tally
from collabdm.documents.canonical_json import canonical_json
from collabdm.errors import DataError, PlanError
from collabdm.images import ImageSet
from collabdm.lab.experiment import Experiment
from collabdm.planning.settings import picture_rules
from collabdm.rounds.exchange import data_digest
from collabdm.seeds import Purpose, Stream


@dataclass(frozen=True)
class RoundData:
    """The images of a simulated round and their split over sites."""

    train: ImageSet
    test: ImageSet
    split: Partition
    tallies: tuple[Tally, ...] = ()

    @cached_property
    def sites(self) -> dict[str, ImageSet]:
        """The training images of each site that has any."""
        return {
            name: images for name, images in self.split.sites(self.train).items() if len(images)
        }

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of the images and of the split, to detect changes."""
        split = self.split
        content = [
            [name, index.tolist()] for name, index in zip(split.names, split.index, strict=True)
        ]
        partition = hashlib.sha256(canonical_json(content).encode()).hexdigest()
        return {"data": data_digest(self.train, self.test), "partition": partition}


def load_round_data(experiment: Experiment) -> RoundData:
    """Read the data of an experiment and split it.

    Raises:
        DataError: the data or the split cannot be read, or training and test images
            differ in shape.
        PlanError: the settings of the split do not fit the data.
    """
    train, test, split, tallies = _images_of(experiment)
    train = limit(train, experiment.per_class, Stream.of(experiment.seed, Purpose.DATA))
    test = limit(test, experiment.test_per_class, Stream.of(0, Purpose.DATA))

    if train.shape != test.shape:
        raise DataError(
            f"training and test images should have one shape; found {train.shape} and {test.shape}"
        )
    return RoundData(train, test, split or split_of(experiment, train), tallies)


def selection_of(experiment: Experiment) -> Selection:
    """Return the choices of an experiment about pictures, with the rules of its plan.

    Raises PlanError if the rules are not valid.
    """
    return Selection(
        experiment.label_column,
        experiment.image_column,
        experiment.class_names,
        experiment.test_split,
        experiment.skip_unreadable,
        picture_rules(experiment.plan.get("pictures")),
    )


def split_of(experiment: Experiment, train: ImageSet) -> Partition:
    """Split the training images over sites: read the experiment's split, or draw it.

    Raises:
        DataError: the file or the column cannot be read, or the split cannot be drawn.
    """
    if experiment.partition is not None:
        return Partition.load(Path(experiment.partition))
    if experiment.site_column is not None:
        return by_column(_sites_of_images(experiment, experiment.site_column, len(train)))
    if experiment.beta is None:
        return iid(len(train), experiment.sites, experiment.seed)

    return dirichlet(
        train.labels,
        len(train.classes),
        experiment.sites,
        experiment.beta,
        experiment.seed,
        experiment.class_floor,
    )


def _sites_of_images(experiment: Experiment, column: str, images: int) -> tuple[str, ...]:
    """Read the site of each image from a column. Raises DataError."""
    sites = column_values(experiment.data, column, selection=selection_of(experiment))
    if len(sites) != images:
        raise DataError(
            f"`site_column` should have one site for each image; found {len(sites):,} for "
            f"{images:,}: use it without `skip_unreadable`"
        )
    return sites


def _images_of(
    experiment: Experiment,
) -> tuple[ImageSet, ImageSet, Partition | None, tuple[Tally, ...]]:
    """Read the training and test images, and the split if the data itself determines it."""
    if experiment.flows is None:
        selection, side = selection_of(experiment), experiment.side
        train, tally = load_tallied(experiment.data, "train", side=side, selection=selection)
        test, other = load_tallied(experiment.data, "test", side=side, selection=selection)
        return train, fit_classes(test, train.classes), None, (tally, other)

    tables = stations(experiment.data, experiment.flows, experiment.site_column, experiment.seed)
    other_split = experiment.per_class is not None or experiment.partition is not None
    if tables.split is not None and other_split:
        raise PlanError(
            "tables of several sites should be used without `per_class` and `partition`; "
            "found both: leave these out"
        )
    return tables.train, tables.test, tables.split, ()
