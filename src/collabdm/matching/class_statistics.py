"""Compute and encode the class means of a site, and merge those of all sites.

For step t (seed a_t, network psi_t without its classifier, embedding width D) and class y, a site k
sends

    L_{t,k}^y = 1/B  sum_{x in D_{t,k}^y}  P_t psi_t(augment_{t,y}(x))

over a batch of B images of the class, or all of them. P_t is a sketch: a seeded D x r matrix of
signs / sqrt(r), so that E |P_t v|^2 = |v|^2; there is no sketch if r = D. Each mean comes with the
number of images in its batch; each class also comes with n_y, the number of its images at the site.
A mean times a count is a sum, so the means of the sites can be merged into those of the pooled
data. Two rules are computed here, and the robust rules in `robust_merging`:

    weighted   sum_k n_k^y L_{t,k}^y / sum_k n_k^y                       (default)
    uniform    the mean of the sites' means                              (Algorithm 1, line 12)

over the sites that take part in step t and have the class; n_k^y is n_y of site k. A class
that no site of the step has is absent from that step. The wire types, in which means are sent, are
float16, float32, and int8 with one float32 scale, max|v| / 127, per (step, class).

References: R. Holland et al., "One-shot collaborative data distillation", 2024 (Algorithm 1).
D. Achlioptas, "Database-friendly random projections", 2003 (signs as projection).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.documents.contribution import Statistics
from collabdm.documents.specs import ROBUST_MERGING, WIRE_DTYPES, Merging, Wire
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.images import ImageSet
from collabdm.matching.embedding import Embedding, Sampling
from collabdm.matching.run_context import RunContext
from collabdm.progress import Progress, Stage


@dataclass(frozen=True)
class Merged:
    """The merged statistics of all sites, the server's targets.

    `means` are the merged class means of each step; `present` is true for the classes that at
    least one site of the step has; `totals` are the numbers of images of each class over all sites.
    """

    means: Float32[Tensor, "T classes r"]
    present: Bool[Tensor, "T classes"]
    totals: Int64[Tensor, " classes"]


def encode(
    means: Float32[Tensor, "*shape r"], wire: Wire
) -> tuple[Tensor, Float32[Tensor, "*shape"] | None]:
    """Encode class means: return the codes and, for int8, their scales.

    Raises:
        DataError: a value does not fit the wire type.
    """
    if wire == "int8":
        scales = means.abs().amax(-1) / 127
        smallest = torch.finfo(torch.float32).tiny
        codes = (means / scales.clamp_min(smallest)[..., None]).round().clamp(-127, 127)
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
    context: RunContext = RunContext(),
) -> Statistics:
    """Compute and encode the class means of a site, in one pass over the steps.

    Args:
        embedding: the embeddings of the plan.
        data: a site's images.
        steps: the numbers of the steps that the site takes part in.
        sampling: the choice of real images in a step.
        wire: the wire type of the means.
        context: progress and checkpoints; a checkpoint contains the means of the finished steps.

    Returns:
        The statistics of the classes that the site has.

    Raises:
        DataError: a mean does not fit the wire type.
    """
    totals = data.counts()
    present = torch.nonzero(totals).flatten()
    shape = (len(steps), len(present), embedding.sketched_width)
    codes = torch.empty(shape, dtype=WIRE_DTYPES[wire])
    scales = torch.empty(shape[:2]) if wire == "int8" else None

    for done in range(_resume(context, codes, scales), len(steps)):
        step = steps[done]
        means = embedding.at(step).real_means(data, sampling.picks(data, step))
        codes[done], step_scales = encode(means[present].cpu(), wire)
        if scales is not None and step_scales is not None:
            scales[done] = step_scales

        context.keep(_checkpoint(done + 1, codes, scales))
        context.report(Progress(Stage.STATISTICS, done + 1, len(steps)))

    batches = totals[present]
    if sampling.batch is not None:
        batches = batches.clamp_max(sampling.batch)
    numbers = torch.tensor(list(steps), dtype=torch.int64)
    return Statistics(numbers, present, codes, scales, batches, totals[present])


def _checkpoint(done: int, codes: Tensor, scales: Tensor | None) -> Checkpoint:
    """Create the checkpoint after `done` steps."""
    tensors = {"codes": codes[:done]}
    return Checkpoint(done, tensors if scales is None else tensors | {"scales": scales[:done]})


def _resume(context: RunContext, codes: Tensor, scales: Tensor | None) -> int:
    """Copy the steps of the context's checkpoint, if any, and return their number."""
    checkpoint = context.resume
    if checkpoint is None:
        return 0

    codes[: checkpoint.done] = checkpoint.tensors["codes"]
    if scales is not None:
        scales[: checkpoint.done] = checkpoint.tensors["scales"]
    return checkpoint.done


def merge(
    sites: Sequence[tuple[str, Statistics]], steps: int, classes: int, rule: Merging
) -> Merged:
    """Merge the statistics of all sites; the order of the sites does not change a single bit.

    Args:
        sites: names and statistics of the sites, at least one.
        steps: T, the number of steps of the plan.
        classes: the number of classes of the plan.
        rule: `weighted` or `uniform`.

    Returns:
        The merged statistics.
    """
    ordered = (statistics for _, statistics in sorted(sites, key=lambda site: site[0]))
    return merge_in_order(ordered, sites[0][1].codes.shape[2], steps, classes, rule)


def merge_in_order(
    ordered: Iterable[Statistics], width: int, steps: int, classes: int, rule: Merging
) -> Merged:
    """Merge statistics that arrive one by one in the order of the sites' names.

    Unlike `merge`, this keeps the statistics of only one site in memory at a time.

    Args:
        ordered: statistics of the sites.
        width: r, the number of values in a mean.
        steps: T, the number of steps of the plan.
        classes: the number of classes of the plan.
        rule: `weighted` or `uniform`.

    Returns:
        The merged statistics.

    Raises:
        DocumentError: a site's means have a different width.
        PlanError: the rule is a robust one, which needs all sites at once.
    """
    if rule in ROBUST_MERGING:
        raise PlanError(f"`merging` should be weighted or uniform here; found {rule}")

    sums = torch.zeros(steps, classes, width, dtype=torch.float64)
    weights = torch.zeros(steps, classes, dtype=torch.float64)
    totals = torch.zeros(classes, dtype=torch.int64)

    for site in ordered:
        if site.codes.shape[2] != width:
            raise DocumentError(f"all sites should send width {width}; found {site.codes.shape[2]}")
        equal = torch.ones(len(site.totals), dtype=torch.float64)
        weight = site.totals.double() if rule == "weighted" else equal
        at = (site.steps[:, None], site.classes[None, :])
        sums[at] += site.means().double() * weight[:, None]
        weights[at] += weight
        totals[site.classes] += site.totals

    means = (sums / weights.clamp_min(1)[..., None]).float()
    return Merged(means, weights > 0, totals)
