"""Measure how well one column alone predicts the label on rows that the predictor has not seen.

The rows of each class, in order, are cut into 25 runs, and run r belongs to fold r mod 5. A
decision tree of at most 64 leaves learns from four folds and predicts the fifth. The score is the
mean over classes of the share of their rows that are predicted correctly (balanced accuracy);
chance is one in the number of classes. Runs are held out because neighbouring rows of a
capture resemble each other; and every class is in every fold, so that a number that counts up is
neither unknown in the held-out rows by accident nor known from the row before.

Reference: L. Breiman et al., "Classification and regression trees", 1984.
"""

import numpy as np
from jaxtyping import Int64

FOLDS, RUNS = 5, 25
LEAVES, SMALLEST_LEAF = 64, 2
LEAST_ROWS = 2 * FOLDS  # classes with fewer rows do not count


def folds_of(classes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Assign rows to folds; -1 for the rows of classes with too few rows, and for class -1."""
    folds = np.full(len(classes), -1, dtype=np.int64)
    for y in np.unique(classes[classes >= 0]):
        rows = np.flatnonzero(classes == y)
        if len(rows) >= LEAST_ROWS:
            folds[rows] = np.arange(len(rows)) * min(RUNS, len(rows)) // len(rows) % FOLDS
    return folds


def score(
    codes: Int64[np.ndarray, " n"],
    classes: Int64[np.ndarray, " n"],
    folds: Int64[np.ndarray, " n"],
) -> float:
    """Return the balanced accuracy of one column, in 0 .. 1; NaN if fewer than two classes count.

    Args:
        codes: The values of the column, numbered in order.
        classes: The class of each row.
        folds: The fold of each row (`folds_of`).
    """
    from sklearn.tree import DecisionTreeClassifier  # imported here: it takes a second

    counted = folds >= 0
    if len(np.unique(classes[counted])) < 2:
        return float("nan")

    values = codes.astype(np.float32).reshape(-1, 1)
    right = np.zeros(len(codes), dtype=bool)
    for fold in range(FOLDS):
        train, test = counted & (folds != fold), folds == fold
        tree = DecisionTreeClassifier(
            max_leaf_nodes=LEAVES,
            min_samples_leaf=SMALLEST_LEAF,
            class_weight="balanced",
            random_state=0,
        ).fit(values[train], classes[train])
        right[test] = tree.predict(values[test]) == classes[test]

    known = np.unique(classes[counted])
    return float(np.mean([right[counted & (classes == y)].mean() for y in known]))
