"""The statistics of a site: per step and class, the mean embedding of real images, coded for the wire.

For step t (seed a_t, network psi_t without its classifier, embedding width D) and class y

    L_{t,k}^y = 1/B  sum_{x in D_{t,k}^y}  P_t psi_t(augment_{t,y}(x))

over a batch of B images of the class, or all of them. P_t is a sketch: a seeded D x r matrix of
signs / sqrt(r), so that E |P_t v|^2 = |v|^2; none when r = D. Beside it stand the number of images in
the batch and, once per class, the total n_y. The mean times its count is a sum, and sums add: merging
the sites' files gives the statistics of the pooled data. Two rules:

    weighted   sum_k n_k^y L_{t,k}^y / sum_k n_k^y                       (default)
    uniform    the mean of the sites' means                              (Algorithm 1, line 12)

over the sites of Z_t that hold the class. A class that none of them holds is absent from the step.
Wire types: float16; int8 with one float32 scale per (step, class), max|v| / 127; float32.

References: R. Holland et al., "One-shot collaborative data distillation", 2024 (Algorithm 1).
D. Achlioptas, "Database-friendly random projections", 2003 (signs as projection).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from collabdm.documents.contribution import Statistics
from collabdm.documents.specs import WIRE_DTYPES, Merging, Wire
from collabdm.errors import DataError, DocumentError
from collabdm.images import ImageSet
from collabdm.matching.embedding import Embedding, Sampling


@dataclass(frozen=True)
class Merged:
    """Targets of the server: `means` is (T, classes, r); `present` is (T, classes)."""

    means: Float32[Tensor, "T classes r"]
    present: Bool[Tensor, "T classes"]
    totals: Int64[Tensor, " classes"]


def encode(means: Float32[Tensor, "*shape r"], wire: Wire) -> tuple[Tensor, Float32[Tensor, "*shape"] | None]:
    """Codes and scales of class means. Raises DataError where a value does not fit the wire type."""
    if wire == "int8":
        scales = means.abs().amax(-1) / 127
        codes = (means / scales.clamp_min(torch.finfo(torch.float32).tiny)[..., None]).round().clamp(-127, 127)
        return codes.to(torch.int8), scales
    codes = means.to(WIRE_DTYPES[wire])
    if not bool(torch.isfinite(codes).all()):
        raise DataError(
            f"class means should fit {wire}; found values up to {float(means.abs().max()):.3g}: "
            "use wire type float32, or a network with a norm"
        )
    return codes, None


def class_statistics(
    embedding: Embedding,
    data: ImageSet,
    steps: Sequence[int],
    sampling: Sampling,
    wire: Wire,
    on_step: Callable[[int], None] = lambda done: None,
) -> Statistics:
    """One pass over the steps: the means of all classes that `data` holds, encoded as they come."""
    totals = data.counts()
    present = torch.nonzero(totals).flatten()
    shape = (len(steps), len(present), embedding.sketched_width)
    codes = torch.empty(shape, dtype=WIRE_DTYPES[wire])
    scales = torch.empty(shape[:2]) if wire == "int8" else None
    for done, step in enumerate(steps):
        means = embedding.at(step).real_means(data, sampling.picks(data, step))
        codes[done], of_step = encode(means[present].cpu(), wire)
        if scales is not None and of_step is not None:
            scales[done] = of_step
        on_step(done + 1)
    counts = totals[present]
    if sampling.batch is not None:
        counts = counts.clamp_max(sampling.batch)
    return Statistics(torch.tensor(list(steps), dtype=torch.int64), present, codes, scales, counts, totals[present])


def merge(parts: Sequence[tuple[str, Statistics]], steps: int, classes: int, rule: Merging) -> Merged:
    """The statistics of all sites as one; the order of (site, statistics) does not matter, to the bit."""
    ordered = (statistics for _, statistics in sorted(parts, key=lambda part: part[0]))
    return merge_in_order(ordered, parts[0][1].codes.shape[2], steps, classes, rule)


def merge_in_order(ordered: Iterable[Statistics], width: int, steps: int, classes: int, rule: Merging) -> Merged:
    """As `merge`, for sites that come one by one in the order of their names: none is kept after it was added."""
    sums = torch.zeros(steps, classes, width, dtype=torch.float64)
    weights = torch.zeros(steps, classes, dtype=torch.float64)
    totals = torch.zeros(classes, dtype=torch.int64)
    for site in ordered:
        if site.codes.shape[2] != width:
            raise DocumentError(f"all sites should send width {width}; found {site.codes.shape[2]}")
        weight = site.totals.double() if rule == "weighted" else torch.ones(len(site.totals), dtype=torch.float64)
        at = (site.steps[:, None], site.classes[None, :])
        sums[at] += site.means().double() * weight[:, None]
        weights[at] += weight
        totals[site.classes] += site.totals
    means = (sums / weights.clamp_min(1)[..., None]).float()
    return Merged(means, weights > 0, totals)
