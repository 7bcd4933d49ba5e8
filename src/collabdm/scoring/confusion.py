"""Compute the confusion matrix, and accuracy, precision, recall and F1 from it.

    C_yx        number of test images of class y that are classified as x
    precision   P_y = C_yy / sum_x C_xy
    recall      R_y = C_yy / sum_x C_yx
    F1          F_y = 2 C_yy / (sum_x C_xy + sum_x C_yx)

y and x are classes. Macro F1 is the mean of F_y over the classes of the test images, and
balanced accuracy the mean of R_y: every class has the same weight, however rare it is.

Reference: C. J. van Rijsbergen, "Information retrieval", 1979 (the F measure).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64
from torch import Tensor


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix: `counts` of (true class, predicted class)."""

    counts: Int64[Tensor, "classes classes"]

    @classmethod
    def of(
        cls, true: Int64[Tensor, " n"], predicted: Int64[Tensor, " n"], classes: int
    ) -> "Confusion":
        """Count pairs of class numbers.

        Args:
            true: The class of each image.
            predicted: The predicted class of each image.
            classes: The number of classes.

        >>> Confusion.of(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).counts.tolist()
        [[1, 1], [0, 1]]
        """
        pairs = torch.bincount(true * classes + predicted, minlength=classes**2)
        return cls(pairs.view(classes, classes))

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return int(self.counts.trace()) / int(self.counts.sum())

    @property
    def precision(self) -> Float64[Tensor, " classes"]:
        """The share of correct images among those predicted as a class; NaN if there are none."""
        return self.counts.diagonal().double() / self.counts.sum(0)

    @property
    def recall(self) -> Float64[Tensor, " classes"]:
        """The share of correct predictions among the images of a class; NaN if there are none."""
        return self.counts.diagonal().double() / self.counts.sum(1)

    @property
    def balanced_accuracy(self) -> float:
        """Balanced accuracy, the mean recall of the classes that occur in the test images."""
        return float(self.recall.nanmean())

    @property
    def macro_f1(self) -> float:
        """Macro F1, the mean F1 of the classes that occur in the test images."""
        tested = self.counts.sum(1) > 0
        f1 = 2 * self.counts.diagonal().double() / (self.counts.sum(0) + self.counts.sum(1))
        return float(f1[tested].mean())
