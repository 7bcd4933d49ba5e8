"""A layer of random thresholds on one to three columns of a table, for embeddings of rows.

Unit j of the layer computes, for an encoded row x in network units (each value in -2 .. 2),

    v_j = sigmoid(w_j . (x - x_j))

where w_j is zero except at one to three columns drawn at random, and x_j is a random point. A large
weight makes the unit a step: the mean of v_j over a class is then about the share of its rows on
one side of a threshold, so the means of many units describe the distribution of each column and of
pairs and triples of columns. That is what decision trees learn from. Weights of a number are
uniform in -s .. s, with s = 0.75 x 2^k for a random k in 0 .. 6; those of the values of a category,
and of a missing number, in -0.375 .. 0.375.

Reference: G. Vietri et al., "Private synthetic data for multitask learning and marginal queries",
NeurIPS 2022 (random half-spaces on few columns, and rows that match their answers).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor, nn

from collabdm.seeds import Stream

MOST_COLUMNS = 3  # of a unit
LEAST_SCALE, SCALES = 0.75, 7  # s = LEAST_SCALE x 2^k, k below SCALES
CATEGORY_SCALE = 0.375
NUMBER_WIDTH = 2  # the largest number of encoded values of a number; a category has more

UNIFORMS_PER_UNIT = 2 + 3 * MOST_COLUMNS  # how many columns, the scale; column, weight and point


class Thresholds(nn.Conv2d):
    """A layer of thresholds; `columns` are the numbers of encoded values of the columns."""

    def __init__(self, columns: Sequence[int], units: int) -> None:
        super().__init__(sum(columns), units, 1)
        self.columns = tuple(columns)

    def seed(self, stream: Stream) -> None:
        """Draw weights and biases from a stream, in float32 on the CPU.

        The sums over the values of a category are exact in float64, and all others have a fixed
        order, so a stream gives the same weights on every machine.
        """
        units, values = self.out_channels, self.in_channels
        drawn = stream.uniforms(units, UNIFORMS_PER_UNIT)
        small = (2 * stream.uniforms(units, values) - 1) * CATEGORY_SCALE

        widths = torch.tensor(self.columns)
        column_of = torch.arange(len(widths)).repeat_interleave(widths)
        first = widths.cumsum(0) - widths
        is_number = torch.zeros(values, dtype=torch.bool)
        is_number[first[widths <= NUMBER_WIDTH]] = True

        used = 1 + (drawn[:, 0] * MOST_COLUMNS).floor()
        scale = LEAST_SCALE * 2.0 ** (drawn[:, 1] * SCALES).floor()
        weight, bias = torch.zeros(units, values), torch.zeros(units)
        for k in range(MOST_COLUMNS):
            column, u, at = drawn[:, 2 + 3 * k : 5 + 3 * k].unbind(1)
            chosen = (column * len(widths)).floor().long()
            own = (2 * u - 1) * scale
            part = torch.where(is_number, own[:, None], small)
            inside = (column_of == chosen[:, None]) & (k < used)[:, None]

            weight += torch.where(inside, part, 0.0)
            bias -= torch.where(k < used, _at_point(part, chosen, at, widths, first), 0.0)

        with torch.no_grad():
            self.weight.copy_(weight[:, :, None, None])
            self.bias.copy_(bias)  # type: ignore[union-attr]


def _at_point(
    weights: Float32[Tensor, "units values"],
    column: Int64[Tensor, " units"],
    at: Float32[Tensor, " units"],
    widths: Int64[Tensor, " columns"],
    first: Int64[Tensor, " columns"],
) -> Float32[Tensor, " units"]:
    """Compute w . x for a random value of a column: a number in -2 .. 2, or one of its categories.

    Args:
        weights: the weights of the columns' encoded values.
        column: the column of each unit.
        at: a uniform number for each unit, which chooses the value.
        widths: the number of encoded values of each column.
        first: the place of the first of them.

    Returns:
        The products; a category that is not chosen has the value -2, the chosen one 2.
    """
    own_width, own_first = widths[column], first[column]
    number: Bool[Tensor, " units"] = own_width <= NUMBER_WIDTH
    units = torch.arange(len(column))
    number_part = weights[units, own_first] * (4 * at - 2)

    place = torch.arange(weights.shape[1])
    inside = (place >= own_first[:, None]) & (place < (own_first + own_width)[:, None])
    is_chosen = place == (own_first + (at * own_width).floor().long())[:, None]
    signs = torch.where(is_chosen, 2.0, -2.0)
    category_part = torch.where(inside, weights * signs, 0.0).double().sum(1).float()

    last = weights[units, own_first + own_width - 1]
    missing_part = torch.where(own_width == NUMBER_WIDTH, -2 * last, 0.0)
    return torch.where(number, number_part + missing_part, category_part)
