"""What was read of a source: the images of each class, and all that was skipped or changed.

Every command that reads pictures prints its tally, so that nothing is left out silently.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MOST_EXAMPLES = 3  # names for each reason
MOST_CLASSES = 20  # in a line

#: reasons, in the order in which they are printed, with their sentences
SENTENCES = {
    "unknown_ending": "skipped, not a known picture ending",
    "foreign": "skipped, hidden or made by another program",
    "outside": "skipped, next to the class folders",
    "unlisted": "skipped, not in the table of labels",
    "dead_link": "skipped, links to nothing",
    "repeated_link": "skipped, links to a folder that was read already",
    "unreadable": "skipped, unreadable",
    "empty_class": "left out, class folders without pictures",
    "several_frames": "of several frames: the first one was used",
    "transparency": "with transparency: composed on the ground colour",
    "deep_levels": "of more than 8 bits per level: scaled to bytes",
    "outside_range": "with levels outside the range: clipped",
    "window": "DICOM: scaled by the window of the header",
    "orientation": "with damaged orientation data: not rotated",
    "squashed": "not square: squashed",
    "cropped": "not square: cropped to the central square",
}


@dataclass(frozen=True)
class Remark:
    """One reason for which pictures were skipped or changed: how many, and a few names."""

    reason: str
    count: int
    examples: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The remark in words."""
        others = self.count - len(self.examples)
        names = ", ".join(self.examples) + (", …" if others > 0 and self.examples else "")
        return f"{self.count:,} {SENTENCES[self.reason]}{f': {names}' if names else ''}"


@dataclass(frozen=True)
class Tally:
    """The images of each class, in the order of `classes`, and all that was skipped or changed."""

    where: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    remarks: tuple[Remark, ...] = ()

    def lines(self) -> list[str]:
        """Return a line with the classes, and one for each reason."""
        pairs = list(zip(self.classes, self.counts, strict=True))
        shown = ", ".join(f"{name} {count:,}" for name, count in pairs[:MOST_CLASSES])
        more = f", and {len(pairs) - MOST_CLASSES} more" if len(pairs) > MOST_CLASSES else ""
        total = f"{_number(sum(self.counts), 'image')} of {_number(len(pairs), 'class', 'es')}"
        return [f"{self.where}: {total} ({shown}{more})", *(f"  {r.line}" for r in self.remarks)]

    def json(self) -> dict[str, Any]:
        """Return the tally as JSON values."""
        remarks = {
            remark.reason: {"count": remark.count, "examples": list(remark.examples)}
            for remark in self.remarks
        }
        return {"classes": dict(zip(self.classes, self.counts, strict=True)), "remarks": remarks}


def _number(count: int, noun: str, ending: str = "s") -> str:
    return f"{count:,} {noun}{'' if count == 1 else ending}"


@dataclass
class Remarks:
    """Collects remarks while a source is read."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        """Count one picture, file or folder."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        names = self.examples.setdefault(reason, [])
        if len(names) < MOST_EXAMPLES:
            names.append(name)

    def frozen(self) -> tuple[Remark, ...]:
        """Return the remarks, in the order of `SENTENCES`."""
        return tuple(
            Remark(reason, self.counts[reason], tuple(self.examples[reason]))
            for reason in SENTENCES
            if reason in self.counts
        )


def remarks_from(entries: Iterable[tuple[str, int, list[str]]]) -> tuple[Remark, ...]:
    """Read remarks from JSON values. Raises ValueError if one is not known."""
    remarks = [Remark(str(r), int(n), tuple(map(str, names))) for r, n, names in entries]
    if any(remark.reason not in SENTENCES for remark in remarks):
        raise ValueError("unknown reason")
    return tuple(remarks)
