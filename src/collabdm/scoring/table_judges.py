"""Judge a set of rows by the classifiers that are usual for tables.

    boosted trees         histogram-based gradient boosting
    random forest         200 trees
    logistic regression   on standardised values

Each is trained on the encoded rows, with classes weighted equally (n / (classes n_y) for a row of
class y), so that a set with as many rows of every class can be compared with all the data. A leaf
of the boosted trees has at least 20 rows, or fewer in a small set: one in a hundred.

The detection rate at a rate a of false alarms is the share of attacks whose score 1 - p_benign(x)
exceeds the (1 - a) quantile of the scores of benign rows.

References: G. Ke et al., "LightGBM: a highly efficient gradient boosting decision tree", NeurIPS
2017 (the trees of scikit-learn). L. Breiman, "Random forests", Machine Learning, 2001.
L. Grinsztajn, E. Oyallon, G. Varoquaux, "Why do tree-based models still outperform deep learning on
typical tabular data?", NeurIPS 2022.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from collabdm.images import ImageSet
from collabdm.scoring.confusion import Confusion

TREES = 200  # of a random forest
ROUNDS = 100  # of boosting
FALSE_ALARMS = 0.01

#: the usual names of the class without attacks
BENIGN = ("benign", "normal", "background", "legitimate")


def _boosted_trees(rows: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=ROUNDS,
        min_samples_leaf=max(2, min(20, rows // 100)),
        early_stopping=False,
        class_weight="balanced",
        random_state=seed,
    )


def _random_forest(rows: int, seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(TREES, class_weight="balanced", random_state=seed)


def _logistic_regression(rows: int, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(max_iter=1000, class_weight="balanced", random_state=seed)
    return make_pipeline(StandardScaler(), regression)


#: the classifiers by name; each is made from the number of rows and a seed
JUDGES: dict[str, Callable[[int, int], Any]] = {
    "boosted trees": _boosted_trees,
    "random forest": _random_forest,
    "logistic regression": _logistic_regression,
}


def trained_judge(name: str, data: ImageSet, seed: int = 0) -> Any:
    """Train a judge on rows.

    Args:
        name: one of `JUDGES`.
        data: the rows.
        seed: the seed of its random draws.

    Returns:
        A classifier of scikit-learn, whose classes are those that the rows have.
    """
    judge = JUDGES[name](len(data), seed)
    return judge.fit(encoded(data), data.labels.numpy())


def encoded(data: ImageSet) -> np.ndarray:
    """Return the encoded rows as a matrix."""
    return data.images.flatten(1).numpy()


def probabilities(judge: Any, rows: ImageSet) -> Float64[Tensor, "n classes"]:
    """Compute class probabilities; those of classes that the judge has not seen are 0."""
    found = torch.from_numpy(np.asarray(judge.predict_proba(encoded(rows)), dtype=np.float64))
    every = torch.zeros(len(rows), len(rows.classes), dtype=torch.float64)
    every[:, torch.as_tensor(judge.classes_, dtype=torch.int64)] = found
    return every


def confusion_of(judge: Any, test: ImageSet) -> Confusion:
    """Count the confusion matrix of a judge on test rows."""
    predicted = probabilities(judge, test).argmax(1)
    return Confusion.of(test.labels, predicted, len(test.classes))


def benign_class(classes: Sequence[str]) -> int | None:
    """Find the class without attacks by its usual name; `0` if the classes are 0 and 1.

    >>> benign_class(("DoS", "Normal")), benign_class(("0", "1")), benign_class(("a", "b"))
    (1, 0, None)
    """
    usual = ("0",) if sorted(classes) == ["0", "1"] else BENIGN
    found = [y for y, name in enumerate(classes) if name.casefold() in usual]
    return found[0] if len(found) == 1 else None


def detection(found: Float64[Tensor, "n classes"], test: ImageSet) -> float | None:
    """Compute the detection rate of class probabilities on test rows.

    None without a class of a usual name for benign rows, without attacks or without benign rows.
    """
    benign = benign_class(test.classes)
    if benign is None:
        return None
    rate = detection_rate(1 - found[:, benign], test.labels, benign)
    return None if math.isnan(rate) else rate


def detection_rate(
    scores: Float64[Tensor, " n"], labels: Int64[Tensor, " n"], benign: int
) -> float:
    """Compute the detection rate at one false alarm in a hundred benign rows.

    Args:
        scores: one minus the probability of the benign class.
        labels: the true classes.
        benign: the benign class.

    Returns:
        The share of attacks above the threshold; NaN without attacks or without benign rows.
    """
    quiet = scores[labels == benign]
    if not len(quiet) or len(quiet) == len(scores):
        return float("nan")
    threshold = quiet.quantile(1 - FALSE_ALARMS)
    return float((scores[labels != benign] > threshold).double().mean())
