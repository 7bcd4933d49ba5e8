"""The issues of a table: faults that are counted and reported instead of raising an error."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class IssueKind(StrEnum):
    """The kinds of issues as messages; `{}` is replaced by the column, the range or the label."""

    NOT_OBJECTS = "lines left out, which are not JSON objects"
    ROW_LENGTH = "rows left out, with another number of fields than {}"
    UNREADABLE = "rows left out, which cannot be read: {}"
    HEADER = "rows left out, which repeat the column names"
    FILES = "files of the folder left out, without the ending of a table: {}"
    DOUBLED = "columns of the same name, the later ones read as {}"
    DELIMITER = "tables with columns separated by {}"
    ENCODING = "tables read in {}"
    ABSENT = "JSON files in which no row has {}, taken as missing"
    OTHER_ROWS = "rows left out, where {}"
    NOT_NUMBERS = "values of {} that are not numbers, taken as missing"
    NOT_TIMES = "values of {} that are not times of the schema's format, taken as missing"
    INFINITE = "infinite values of {}, taken as missing"
    OUTSIDE = "values of {}, clipped"
    UNLISTED = "values of {} that the schema does not list, taken as other"
    SIMILAR_LABEL = "rows with the label {}"
    EMPTY_LABEL = "rows with an empty label, taken as {}"
    UNKNOWN_LABEL = "rows with a label that is no class of the schema, {}"
    NO_LABEL = "rows without a label"


@dataclass(frozen=True)
class Issue:
    """One issue: its kind, and the column, range or label that it concerns."""

    kind: IssueKind
    subject: str = ""

    def __str__(self) -> str:
        return self.kind.format(self.subject)


@dataclass(frozen=True)
class Tally:
    """The number of rows read from a table, and how often each issue occurred."""

    rows: int = 0
    counts: Counter[Issue] = field(default_factory=Counter)

    def lines(self, *ignored: IssueKind) -> list[str]:
        """Write a line for each issue, the most frequent first, except for the ignored kinds."""
        return [
            f"{issue}: {count:,}"
            for issue, count in self.counts.most_common()
            if count and issue.kind not in ignored
        ]
