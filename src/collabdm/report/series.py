"""Collect the series of the plots of one or more rounds on the same data.

A point is one set of one round: its accuracy with the first network, the bytes that a site sent for
it at most, and its stored images. With more than `MOST_SERIES` methods, the main method of the
first round and the best others are shown; the table of the page lists all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from collabdm.documents.canonical_json import canonical_json
from collabdm.report.contestants import is_baseline, is_method, is_random, is_yardstick
from collabdm.report.contestants import of_first_network as first_network
from collabdm.report.rounds import RoundFiles
from collabdm.scoring.evaluation import Score

MOST_SERIES = 8


@dataclass(frozen=True)
class Point:
    """One set of one round.

    Attributes:
        round: The number of the round on the page, from 1.
        score: The accuracies.
        upload: The most bytes that one site sent; None if nothing is sent, or unknown.
        stored: The images that the set stores; 0 for a network.
        settings: A text that rounds have in common if they differ only in ipc and seed.
    """

    round: int
    score: Score
    upload: int | None
    stored: int
    settings: str

    @property
    def what(self) -> str:
        """The name of the set."""
        return self.score.what


def points_of(rounds: Sequence[tuple[int, RoundFiles]]) -> list[Point]:
    """List the points of numbered rounds, of all sets."""
    points = []
    for number, files in rounds:
        settings = _settings(number, files)
        for score in first_network(files.scores):
            upload = files.largest_upload(score.what)
            points.append(Point(number, score, upload, _stored(files, score), settings))
    return points


def shown_methods(points: Iterable[Point]) -> list[str]:
    """Choose the methods to show: all, or the first and the best others."""
    found: dict[str, float] = {}
    for point in points:
        if is_method(point.what) or (is_yardstick(point.what) and not is_baseline(point.what)):
            found[point.what] = max(found.get(point.what, 0.0), point.score.mean)

    first, *others = found or [""]
    best = sorted(others, key=lambda what: -found[what])[: MOST_SERIES - 1]
    return [what for what in found if what == first or what in best]


def by_name(points: Iterable[Point], names: Sequence[str]) -> dict[str, list[Point]]:
    """Group points by the name of their set, in the order of the given names."""
    groups: dict[str, list[Point]] = {name: [] for name in names}
    for point in points:
        if point.what in groups:
            groups[point.what].append(point)
    return {name: group for name, group in groups.items() if group}


def _stored(files: RoundFiles, score: Score) -> int:
    """Count the stored images of a set; with pae, a network is trained on more, smaller ones."""
    record = files.results.sets.get(score.what) if files.results else None
    if record is not None:
        return record.images
    if files.distilled is not None and score.what == files.method:
        return len(files.distilled.images)
    if is_random(score.what):
        return min(other.images for other in files.scores if is_random(other.what))
    return score.images


def _settings(number: int, files: RoundFiles) -> str:
    if files.experiment is None:
        return str(number)
    settings = files.experiment.model_dump(mode="json", exclude={"seed"})
    settings["plan"] = {key: value for key, value in settings["plan"].items() if key != "ipc"}
    return canonical_json(settings)
