"""How well classes are told apart: counts of (true, predicted), and what follows from them.

    precision_y = C_yy / sum_x C_xy     recall_y = C_yy / sum_x C_yx     F_y = 2 C_yy / (sum_x C_xy + sum_x C_yx)

Macro F1 is the mean of F_y over the classes that the test has: every class counts alike, however rare.

Reference: none.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


@dataclass(frozen=True)
class Confusion:
    """`counts` of (true class, predicted class)."""

    counts: Int64[Tensor, "classes classes"]

    @classmethod
    def of(cls, true: Int64[Tensor, " n"], predicted: Int64[Tensor, " n"], classes: int) -> "Confusion":
        """Count pairs of class numbers.

        >>> Confusion.of(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).counts.tolist()
        [[1, 1], [0, 1]]
        """
        return cls(torch.bincount(true * classes + predicted, minlength=classes**2).view(classes, classes))

    @property
    def accuracy(self) -> float:
        """Share of what is told right."""
        return int(self.counts.trace()) / int(self.counts.sum())

    @property
    def precision(self) -> Float64[Tensor, " classes"]:
        """Of what is taken for a class, the share that is; NaN where nothing is."""
        return self.counts.diagonal().double() / self.counts.sum(0)

    @property
    def recall(self) -> Float64[Tensor, " classes"]:
        """Of a class, the share that is found; NaN where the test has none."""
        return self.counts.diagonal().double() / self.counts.sum(1)

    @property
    def macro_f1(self) -> float:
        """Mean of F_y over the classes that the test has."""
        held = self.counts.sum(1) > 0
        f = 2 * self.counts.diagonal().double() / (self.counts.sum(0) + self.counts.sum(1))
        return float(f[held].mean())
