"""Load a table of flows as an ImageSet, and report what was left out."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from collabdm.data.flows.tables import Reading, read_flows
from collabdm.data.flows.windows import Part, windows
from collabdm.documents.flow_schema import FlowSchema
from collabdm.errors import DataError
from collabdm.images import ImageSet


def load_flows(
    path: str | Path,
    schema: FlowSchema,
    part: Part = "train",
    reading: Reading = Reading(),
    note: Callable[[str], None] = lambda line: None,
) -> ImageSet:
    """Load the labelled images of one part of a table.

    Args:
        path: A table, several tables, a pattern or a folder (see `several`).
        schema: The schema that the table follows.
        part: The training part, the test part, or all rows without a split.
        reading: Which rows to read, and whether they need labels.
        note: A function that receives a sentence for each issue and for everything left out.

    Raises:
        DataError: The table does not follow the schema, or does not fill an image.
    """
    flows, tally = read_flows(path, schema, reading)
    grouped = windows(flows, schema, part)
    data = grouped.labelled(schema.classes)

    if not len(data):
        raise DataError(
            f"{path} should yield an image of {schema.flows} rows for {part}; "
            f"found {len(flows):,} rows that yield none: "
            "take more rows, fewer `flows`, or another `split`"
        )

    rows = torch.bincount(flows.labels + 1, minlength=len(schema.classes) + 1)[1:]
    for line in (*tally.lines(), *_absent_classes(data, rows)):
        note(line)

    note(
        f"{len(data):,} images for {part} of {len(flows):,} rows; rows left over: "
        f"{grouped.leftover:,}; left out next to the test: {grouped.adjacent:,}"
    )
    if grouped.mixed:
        note(f"images with rows of several classes, labelled by the majority: {grouped.mixed:,}")
    return data


def _absent_classes(data: ImageSet, rows: Int64[Tensor, " classes"]) -> list[str]:
    """Write a sentence for each class without images, with its number of rows in the table."""
    return [
        f"no image of class `{name}`: {int(count):,} rows in the whole table"
        for name, count, images in zip(data.classes, rows, data.counts(), strict=True)
        if images == 0
    ]
