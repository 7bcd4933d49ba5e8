"""Rows of pixels grouped to images: by class, as the paper does, or as they come, which is what a live classifier sees.

    part(r)     of row r, in order of time: window w = floor(r / flows), block b = floor(w / block);
                test if b mod held_out = held_out - 1; left out if w is beside such a block; else training
    class       the rows of a class in one part, in order, `flows` at a time; what does not fill an image is left
    stream      the rows of window w; its class is that of most of its rows (the first of equals)

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5 (grouping by class).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from collabdm.documents.flow_schema import FlowSchema
from collabdm.images import ImageSet
from collabdm.seeds import Purpose, Stream

UNKNOWN = -1  # the label of a row that has none


Part = Literal["train", "test", "all"]


@dataclass(frozen=True)
class Flows:
    """Rows as pixels, in order of time, and the class of each (-1 where it is not known)."""

    levels: UInt8[Tensor, "n features"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Windows:
    """Images of rows. `labels` are -1 where no row of an image has one; `first` is the first row of each image.

    `mixed` images have rows of several classes; `left` rows did not fill an image; `beside` rows lie beside the test.
    """

    images: UInt8[Tensor, "n 1 side side"]
    labels: Int64[Tensor, " n"]
    first: Int64[Tensor, " n"]
    mixed: int
    left: int
    beside: int

    def labelled(self, classes: tuple[str, ...]) -> ImageSet:
        """The images whose class is known."""
        known = self.labels != UNKNOWN
        return ImageSet(self.images[known], self.labels[known], classes)


def windows(flows: Flows, schema: FlowSchema, part: Part = "all", seed: int = 0) -> Windows:
    """The images of one part of a table; `seed` draws the random split."""
    split = "none" if part == "all" else schema.split
    rows, beside = torch.arange(len(flows)), 0
    if split == "time":
        parts = _parts(rows, schema)
        rows, beside = rows[parts == (part == "test")], int((parts == 2).sum())
    groups = _GROUPINGS[schema.grouping](rows, flows, schema)
    left = len(rows) - groups.numel()
    if split == "random":
        order = Stream.of(seed, Purpose.DATA).permutation(len(groups))
        test = order[: len(groups) // schema.held_out]
        keep = torch.full((len(groups),), part == "train")
        keep[test] = part == "test"
        groups = groups[keep]
    labels, mixed = _majority(flows.labels[groups], len(schema.classes))
    first = groups[:, 0] if len(groups) else torch.empty(0, dtype=torch.int64)
    return Windows(lay_out(flows.levels[groups], schema), labels, first, mixed, left, beside)


def lay_out(levels: UInt8[Tensor, "n flows features"], schema: FlowSchema) -> UInt8[Tensor, "n 1 side side"]:
    """Pixels of rows in their places in the images (see FlowSchema.layout)."""
    n, flows, features = levels.shape
    if schema.layout == "rows":
        tall = F.pad(levels, (0, schema.lines * schema.side - features))
        tall = tall.view(n, flows, schema.lines * schema.side)
        times = schema.side // (flows * schema.lines)
        levels = tall.repeat_interleave(times, dim=1)
    flat = levels.reshape(n, levels.shape[1] * levels.shape[2])
    return F.pad(flat, (0, schema.side**2 - flat.shape[1])).view(n, 1, schema.side, schema.side)


def _parts(rows: Int64[Tensor, " n"], schema: FlowSchema) -> Int64[Tensor, " n"]:
    """0 for training, 1 for the test, 2 for a row beside the test."""
    window = rows // schema.flows
    test = _is_test(window // schema.block, schema)
    beside = _is_test((window - 1) // schema.block, schema) | _is_test((window + 1) // schema.block, schema)
    return torch.where(test, 1, torch.where(beside, 2, 0))


def _is_test(block: Int64[Tensor, " n"], schema: FlowSchema) -> Bool[Tensor, " n"]:
    return (block >= 0) & (block % schema.held_out == schema.held_out - 1)


def _by_class(rows: Int64[Tensor, " m"], flows: Flows, schema: FlowSchema) -> Int64[Tensor, "n flows"]:
    groups = []
    for y in range(len(schema.classes)):
        own = rows[flows.labels[rows] == y]
        groups.append(own[: len(own) // schema.flows * schema.flows].view(-1, schema.flows))
    return torch.cat(groups)


def _as_they_come(rows: Int64[Tensor, " m"], flows: Flows, schema: FlowSchema) -> Int64[Tensor, "n flows"]:
    return rows[: len(rows) // schema.flows * schema.flows].view(-1, schema.flows)


_GROUPINGS = {"class": _by_class, "stream": _as_they_come}


def _majority(labels: Int64[Tensor, "n flows"], classes: int) -> tuple[Int64[Tensor, " n"], int]:
    """The class of most rows of each window, and how many windows have several."""
    counts = F.one_hot(labels + 1, classes + 1)[..., 1:].sum(1)
    found = torch.where(counts.sum(1) > 0, counts.argmax(1), UNKNOWN)
    return found, int(((counts > 0).sum(1) > 1).sum())
