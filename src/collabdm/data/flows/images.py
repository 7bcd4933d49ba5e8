"""Tables of network flows as images of traffic: what sites agree on, how a table is read, what a network sees.

    rows of a table  ->  pixels (`schema`, `tables`)  ->  windows of rows, images of a class (`windows`)

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from collabdm.data.flows.tables import Reading, read_flows
from collabdm.data.flows.windows import Part, windows
from collabdm.documents.flow_schema import FlowSchema
from collabdm.errors import DataError
from collabdm.images import ImageSet


def load_flows(
    path: Path,
    schema: FlowSchema,
    part: Part = "train",
    reading: Reading = Reading(),
    told: Callable[[str], None] = lambda line: None,
) -> ImageSet:
    """The images of one part of a table; `told` gets a sentence for whatever was not as it should be.

    Raises DataError where the table is not one of the schema, or gives no image.
    """
    flows, tally = read_flows(path, schema, reading)
    found = windows(flows, schema, part)
    held = found.labelled(schema.classes)
    if not len(held):
        raise DataError(
            f"{path} should give an image of {schema.flows} rows for {part}; found {len(flows):,} rows that give none: "
            "take more rows, fewer `flows`, or another `split`"
        )
    for line in [*tally.lines(), *_notes(held, torch.bincount(flows.labels + 1, minlength=len(schema.classes) + 1))]:
        told(line)
    told(
        f"{len(held):,} images for {part} of {len(flows):,} rows; rows that fill none: {found.left:,}; "
        f"left out beside the test: {found.beside:,}"
    )
    if found.mixed:
        told(f"images with rows of several classes, labelled by the majority: {found.mixed:,}")
    return held


def _notes(held: ImageSet, rows: torch.Tensor) -> list[str]:
    """A sentence for each class that gives no image."""
    return [
        f"no image of class `{name}`: {int(n):,} rows in the whole table"
        for name, n, images in zip(held.classes, rows[1:], held.counts(), strict=True)
        if images == 0
    ]
