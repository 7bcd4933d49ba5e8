"""Measure how well one column alone predicts the label on rows that the predictor has not seen.

The rows of each class, in order, are cut into 25 runs, and run r belongs to fold r mod 5. A
decision tree of at most 64 leaves learns from four folds and predicts the fifth. The score is the
mean over classes of the share of their rows that are predicted correctly (balanced accuracy);
chance is one in the number of classes. Whole runs are held out because neighbouring rows of a
capture resemble each other, and no row between two neighbouring held-out rows is learned from: a
number that counts up would otherwise be known from the row before, or would seem to belong to the
other classes. As every class is in every fold, it is not unknown by accident either.

Reference: L. Breiman et al., "Classification and regression trees", 1984.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

FOLDS, RUNS = 5, 25
LEAVES, SMALLEST_LEAF = 64, 2
LEAST_ROWS = 2 * FOLDS  # classes with fewer rows do not count


@dataclass(frozen=True)
class Split:
    """The rows to learn from and the rows to predict, as masks."""

    train: Bool[np.ndarray, " n"]
    test: Bool[np.ndarray, " n"]


def splits_of(classes: Int64[np.ndarray, " n"]) -> list[Split]:
    """Split rows into folds; the rows of class -1 and of classes with too few rows do not count."""
    folds = np.full(len(classes), -1, dtype=np.int64)
    for y in np.unique(classes[classes >= 0]):
        rows = np.flatnonzero(classes == y)
        if len(rows) >= LEAST_ROWS:
            folds[rows] = np.arange(len(rows)) * min(RUNS, len(rows)) // len(rows) % FOLDS

    splits = []
    for fold in range(FOLDS):
        test = folds == fold
        splits.append(Split((folds >= 0) & ~test & ~_between(test, classes), test))
    return splits


def _between(
    test: Bool[np.ndarray, " n"], classes: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Find the rows between neighbouring held-out rows of a class, at most a run apart."""
    steps = np.zeros(len(test) + 1, dtype=np.int64)
    for y in np.unique(classes[test]):
        rows = np.flatnonzero(test & (classes == y))
        near = np.diff(rows) <= max(len(test) // RUNS, 1)
        np.add.at(steps, rows[:-1][near], 1)
        np.add.at(steps, rows[1:][near], -1)
    return np.cumsum(steps[:-1]) > 0


def classes_that_count(splits: list[Split], classes: Int64[np.ndarray, " n"]) -> int:
    """Count the classes that are predicted."""
    tested = np.any([split.test for split in splits], axis=0)
    return len(np.unique(classes[tested]))


def score(
    codes: Int64[np.ndarray, " n"],
    classes: Int64[np.ndarray, " n"],
    splits: list[Split],
) -> float:
    """Return the balanced accuracy of one column, in 0 .. 1; NaN if fewer than two classes count.

    Args:
        codes: The values of the column, numbered in order.
        classes: The class of each row.
        splits: The folds (`splits_of`).
    """
    from sklearn.tree import DecisionTreeClassifier  # imported here: it takes a second

    if classes_that_count(splits, classes) < 2:
        return float("nan")

    values = codes.astype(np.float32).reshape(-1, 1)
    right = np.zeros(len(codes), dtype=bool)
    for split in splits:
        if not split.train.any() or not split.test.any():
            continue
        tree = DecisionTreeClassifier(
            max_leaf_nodes=LEAVES,
            min_samples_leaf=SMALLEST_LEAF,
            class_weight="balanced",
            random_state=0,
        ).fit(values[split.train], classes[split.train])
        right[split.test] = tree.predict(values[split.test]) == classes[split.test]

    tested = np.any([split.test for split in splits], axis=0)
    known = np.unique(classes[tested])
    return float(np.mean([right[tested & (classes == y)].mean() for y in known]))
