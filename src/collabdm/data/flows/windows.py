"""Group the rows of a table of flows into images, by class (as in the paper) or by time.

    time split  row r, in order of time, is in window w = floor(r / flows) and in block
                b = floor(w / block); it is a test row if b mod held_out = held_out - 1, is left out
                if w is adjacent to a test block, and is a training row otherwise
    by class    an image has `flows` consecutive rows of one class, out of those of a part; the rows
                of an incomplete image are left over
    by time     an image has `flows` consecutive rows of any classes (grouping `stream`); its class
                is that of most of its rows (ties: the first class)

With `form` rows, every row is an image of its own, of one pixel with a channel for each of its
encoded values (`collabdm.data.flows.rows`).

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5 (grouping
by class).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from collabdm.documents.flow_schema import FlowSchema
from collabdm.images import ImageSet
from collabdm.seeds import Purpose, Stream

UNKNOWN = -1  # the class of a row without a label

Part = Literal["train", "test", "all"]

_TRAIN, _TEST, _ADJACENT = 0, 1, 2


@dataclass(frozen=True)
class Flows:
    """The rows of a table, in order of time, and their classes (-1 if unknown).

    `levels` are the pixels of their features or, with `form` rows, their encoded values.
    """

    levels: UInt8[Tensor, "n features"] | Float32[Tensor, "n width"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Windows:
    """Images, each formed from a group of rows.

    `labels` are -1 for an image in which no row has a label; `first` is the first row of each
    image. `mixed` counts the images with rows of several classes, `leftover` the rows that did not
    fill an image, and `adjacent` the rows that were left out because they are next to test rows.
    """

    images: UInt8[Tensor, "n 1 side side"] | Float32[Tensor, "n width 1 1"]
    labels: Int64[Tensor, " n"]
    first: Int64[Tensor, " n"]
    mixed: int
    leftover: int
    adjacent: int

    def labelled(self, classes: tuple[str, ...]) -> ImageSet:
        """Return the images whose class is known."""
        known = self.labels != UNKNOWN
        if known.all():
            return ImageSet(self.images, self.labels, classes)
        return ImageSet(self.images[known], self.labels[known], classes)


def windows(flows: Flows, schema: FlowSchema, part: Part = "all", seed: int = 0) -> Windows:
    """Group the rows of one part of a table into images.

    Args:
        flows: The rows of the table.
        schema: The grouping, the layout and the split.
        part: The training part, the test part, or all rows without a split.
        seed: The seed of a random split.
    """
    split = "none" if part == "all" else schema.split
    rows, adjacent = torch.arange(len(flows)), 0

    if split == "time":
        parts = _split_by_time(rows, schema)
        rows = rows[parts == (_TEST if part == "test" else _TRAIN)]
        adjacent = int((parts == _ADJACENT).sum())

    groups = _GROUPINGS[schema.grouping](rows, flows, schema)
    leftover = len(rows) - groups.numel()

    if split == "random":
        groups = groups[_draw(len(groups), part, schema.held_out, seed)]

    labels, mixed = _majority(flows.labels[groups], len(schema.classes))
    if schema.as_rows:
        images = flows.levels[groups[:, 0]][:, :, None, None]
    else:
        images = lay_out(flows.levels[groups], schema)
    return Windows(images, labels, groups[:, 0], mixed, leftover, adjacent)


def lay_out(
    levels: UInt8[Tensor, "n flows features"], schema: FlowSchema
) -> UInt8[Tensor, "n 1 side side"]:
    """Place the pixels of rows in images, as `FlowSchema.layout` requires."""
    n, flows, features = levels.shape
    side = schema.side

    if schema.layout == "rows":
        width = schema.lines * side
        lines = F.pad(levels, (0, width - features)).view(n, flows, width)
        levels = lines.repeat_interleave(side // (flows * schema.lines), dim=1)

    pixels = levels.reshape(n, levels.shape[1] * levels.shape[2])
    return F.pad(pixels, (0, side**2 - pixels.shape[1])).view(n, 1, side, side)


def _split_by_time(rows: Int64[Tensor, " n"], schema: FlowSchema) -> Int64[Tensor, " n"]:
    """Return 0 for a training row, 1 for a test row, and 2 for a row next to test rows."""
    window = rows // schema.flows
    before, after = (window - 1) // schema.block, (window + 1) // schema.block

    test = _is_test(window // schema.block, schema)
    adjacent = _is_test(before, schema) | _is_test(after, schema)
    return torch.where(test, _TEST, torch.where(adjacent, _ADJACENT, _TRAIN))


def _is_test(block: Int64[Tensor, " n"], schema: FlowSchema) -> Bool[Tensor, " n"]:
    return (block >= 0) & (block % schema.held_out == schema.held_out - 1)


def _draw(count: int, part: Part, held_out: int, seed: int) -> Bool[Tensor, " n"]:
    """Draw the random split: whether each image belongs to `part`."""
    order = Stream.of(seed, Purpose.DATA).permutation(count)
    test = torch.zeros(count, dtype=torch.bool)
    test[order[: count // held_out]] = True
    return test if part == "test" else ~test


def _by_class(
    rows: Int64[Tensor, " m"], flows: Flows, schema: FlowSchema
) -> Int64[Tensor, "n flows"]:
    """Group rows of the same class, class by class."""
    labels = flows.labels[rows]
    return torch.cat(
        [_consecutive(rows[labels == y], schema.flows) for y in range(len(schema.classes))]
    )


def _in_order(
    rows: Int64[Tensor, " m"], flows: Flows, schema: FlowSchema
) -> Int64[Tensor, "n flows"]:
    """Group consecutive rows, of any classes."""
    return _consecutive(rows, schema.flows)


def _consecutive(rows: Int64[Tensor, " m"], size: int) -> Int64[Tensor, "n size"]:
    return rows[: len(rows) // size * size].view(-1, size)


_GROUPINGS = {"class": _by_class, "stream": _in_order}


def _majority(labels: Int64[Tensor, "n flows"], classes: int) -> tuple[Int64[Tensor, " n"], int]:
    """Find the class of most rows of each window; count the windows with several classes."""
    counts = F.one_hot(labels + 1, classes + 1)[..., 1:].sum(1)
    majority = torch.where(counts.sum(1) > 0, counts.argmax(1), UNKNOWN)
    return majority, int(((counts > 0).sum(1) > 1).sum())
