"""Compare labels with the classes of a schema.

Two labels are similar if they are equal in NFC, without regard to case, to the kind of dash, to
repeated spaces and to `.0` after a whole number. A label that is not listed belongs to the class to
which it alone is similar; this is counted. Dashes that another encoding has replaced by U+FFFD or
by the controls 0x96 and 0x97 of cp1252 count as dashes.
"""

import re
import unicodedata
from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Int64

from collabdm.data.flows.cells import ABSENT, NOT_LISTED, positions, texts
from collabdm.data.flows.issues import Issue, IssueKind
from collabdm.data.flows.windows import UNKNOWN
from collabdm.documents.flow_schema import FlowSchema

DASHES = re.compile("[\u2010-\u2015\u2212\u0096\u0097\ufffd]")
WHOLE = re.compile(r"([+-]?\d+)\.0+")


def similar(label: str) -> str:
    """Return a text that is the same for similar labels."""
    text = DASHES.sub("-", unicodedata.normalize("NFC", label))
    text = " ".join(text.split()).casefold()
    whole = WHOLE.fullmatch(text)
    return whole.group(1) if whole else text


def class_numbers(
    cells: Any, schema: FlowSchema, counts: Counter[Issue]
) -> Int64[np.ndarray, " n"]:
    """Convert labels to class numbers; -1 if a label is missing or not a class of the schema.

    Args:
        cells: The column of labels, cleaned.
        schema: The schema, with the classes.
        counts: A counter to which labels that are empty, similar or unknown are added.
    """
    import pyarrow as pa  # here and below, so that the command line starts fast
    import pyarrow.compute as pc

    text = texts(cells)
    text = pc.if_else(pc.is_in(text, pa.array(schema.missing, pa.string())), None, text)
    of_class = schema.class_numbers
    places = positions(text, tuple(of_class))
    found = np.array([*of_class.values(), UNKNOWN, UNKNOWN], dtype=np.int64)[places]

    empty = places == ABSENT
    if schema.empty_label is None:
        counts[Issue(IssueKind.NO_LABEL)] += int(empty.sum())
    else:
        counts[Issue(IssueKind.EMPTY_LABEL, f"`{schema.empty_label}`")] += int(empty.sum())
        found[empty] = of_class[schema.empty_label]

    unknown = text.filter(pa.array(places == NOT_LISTED))
    for label in pc.value_counts(unknown).to_pylist():
        name, count = label["values"], label["counts"]
        nearest = [value for value in of_class if similar(value) == similar(name)]
        if len({of_class[value] for value in nearest}) == 1:
            found[np.asarray(pc.fill_null(pc.equal(text, name), False))] = of_class[nearest[0]]
            written = f"{name!r}, read as `{nearest[0]}`"
            counts[Issue(IssueKind.SIMILAR_LABEL, written)] += count
        else:
            counts[Issue(IssueKind.UNKNOWN_LABEL, f"{name!r}")] += count
    return found
