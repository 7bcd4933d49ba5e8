"""CollabDM: collaborative distribution matching in one round (Algorithm 1).

    site k     S_k  local distillation            L_{t,k}^y = mean_{x in D_{t,k}^y} psi_{a_t}(x)
    server     S <- union of the S_k;  for t = 1 .. T:
               S <- S - eta grad_S  sum_y | merge_k L_{t,k}^y - mean_{x in S^y} psi_{a_t}(x) |^2

With pae (`plan.pae` = l > 1), every image of S stores l x l small images, both at the sites and at
the server.

Reference: R. Holland, C. Thapa, S. A. Siddiqui, W. Shao, S. Camtepe, "One-shot collaborative data
distillation", 2024.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.documents.contribution import Contribution, Statistics, stated_counts
from collabdm.documents.outcomes import DistilledSet, sum_over
from collabdm.documents.plan import Plan
from collabdm.documents.specs import ROBUST_MERGING
from collabdm.images import ImageSet, as_float
from collabdm.matching.class_statistics import Merged, class_statistics, merge_in_order
from collabdm.matching.embedding import Sampling, StepEmbedding, plan_embedding
from collabdm.matching.loop import Problem, Target, match, start_from
from collabdm.matching.network_size import statistics_width
from collabdm.matching.robust_merging import ReadSites, merge_robust
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import (
    Contributions,
    check_classes,
    check_data,
    checked,
    class_counts,
    site_seed,
    stored_pixels,
)
from collabdm.methods.localdm import local_images
from collabdm.methods.start_images import jitter_stored, noise_images
from collabdm.privacy.noised_statistics import added_noise, noised_statistics
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """Compute a site's answer to the plan; the same plan, data and site give the same bytes.

    This does not hold for a plan with a privacy budget: each call draws other noise, and two
    answers reveal more than one. `rounds.exchange.contribute_file` answers such a plan once.

    Args:
        plan: the plan.
        data: the site's images, of the plan's classes and shape.
        site: the site's name.
        context: device, progress and checkpoints.

    Returns:
        The contribution.

    Raises:
        DataError: the data does not fit the plan.
        PlanError: the name is not in the plan.
    """
    check_data(plan, data)
    plan.check_site(site)
    seed = site_seed(plan, site, context)

    images = local_images(plan, data, seed, context)
    statistics = _statistics(plan, data, site, seed, context)
    noise = None if plan.privacy is None else added_noise(plan)
    return Contribution(site, plan.digest, statistics, images, versions(), noise=noise)


def _statistics(
    plan: Plan, data: ImageSet, site: str, seed: int, context: RunContext
) -> Statistics:
    """Compute the site's class means for every step in which it takes part."""
    part = context.part("statistics")
    if plan.privacy is not None:
        return noised_statistics(plan, data, part)

    steps = plan.steps_of(site)
    counts = data.counts() if plan.batch is None else data.counts().clamp_max(plan.batch)
    embedding = plan_embedding(plan, context.compute, work=len(steps) * int(counts.sum()))
    sampling = Sampling(seed, Purpose.BATCH, plan.batch)

    statistics = class_statistics(embedding, data, steps, sampling, plan.wire, part)
    batches, totals = stated_counts(plan, statistics.totals)
    return replace(statistics, batch_counts=batches, totals=totals)


def shows_real_images(plan: Plan) -> bool:
    """Return whether the images that a site sends are real images, or start from real images."""
    local = plan.local
    starts_real = local.method == "dm" and local.start == "real"
    return local.images > 0 and (local.method == "random" or starts_real)


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> DistilledSet:
    """Distil `ipc` images of every class: refine the sites' images with the merged statistics.

    Args:
        plan: the plan.
        contributions: the contributions, in any order. A mapping from site names may read each
            lazily: only the counts and the local images of each stay in memory. Robust merging
            reads them once for each block of steps.
        context: device, progress and checkpoints.
        allow_missing: accept a round in which a class is missing at every site.

    Returns:
        The distilled set.

    Raises:
        DocumentError: a contribution does not answer the plan, or a class is missing and
            `allow_missing` is False.
    """
    counts: dict[str, Int64[Tensor, " classes"]] = {}
    local: dict[str, ImageSet] = {}

    def statistics() -> Iterator[Statistics]:
        for contribution in checked(plan, contributions, {}):
            counts[contribution.site] = class_counts(plan, contribution)
            local[contribution.site] = contribution.images
            yield contribution.statistics

    merged = _merge(plan, len(contributions), statistics)
    check_classes(plan, merged.totals, allow_missing)

    start = start_images(plan, local, counts)
    sites = {site: of_site.tolist() for site, of_site in counts.items()}
    return _refined_set(plan, start, merged, sites, context)


def distill_merged(
    plan: Plan,
    merged: Merged,
    sites: Sequence[str],
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> DistilledSet:
    """Distil `ipc` images of every class from merged statistics alone, as masks leave them.

    The result is that of `distill` with the contributions behind the statistics.

    Args:
        plan: the plan, whose sites send no images.
        merged: the merged statistics of all sites.
        sites: the names of the sites.
        context: device, progress and checkpoints.
        allow_missing: accept a round in which a class is missing at every site.

    Returns:
        The distilled set, which lists the counts of all sites together.

    Raises:
        DocumentError: a class is missing and `allow_missing` is False.
    """
    check_classes(plan, merged.totals, allow_missing)

    together = sum_over(sites)
    start = start_images(plan, {}, {together: merged.totals})
    return _refined_set(plan, start, merged, {together: merged.totals.tolist()}, context)


def _refined_set(
    plan: Plan,
    start: tuple[Float32[Tensor, "n c h w"], Int64[Tensor, " n"]],
    merged: Merged,
    sites: dict[str, list[int]],
    context: RunContext,
) -> DistilledSet:
    """Refine the initial images, and make the set of them."""
    pixels, labels = start
    refined = refine(plan, pixels, labels, merged, context)
    images = ImageSet(stored_pixels(plan, refined), labels, plan.classes)
    return DistilledSet(images, plan, sites, plan.method, versions())


def _merge(plan: Plan, sites: int, read: ReadSites) -> Merged:
    """Merge the statistics of `sites` sites by the plan's rule."""
    if plan.merging in ROBUST_MERGING:
        return merge_robust(plan, sites, read)

    width, classes = statistics_width(plan), len(plan.classes)
    return merge_in_order(read(), width, plan.steps, classes, plan.merging)


def start_images(
    plan: Plan, local: Mapping[str, ImageSet], counts: Mapping[str, Int64[Tensor, " classes"]]
) -> tuple[Float32[Tensor, "n c h w"], Int64[Tensor, " n"]]:
    """Choose the images that refinement starts from: `ipc` of each class, out of those sent.

    Images are taken in proportion to the number of images that each site has (`weighted`), at
    random (`uniform`, as in the authors' program), or evenly from the sites (robust merging, so
    that no site supplies more than its part, whatever number of images it states). If too few were
    sent, slightly moved copies are added; if the plan starts from noise or no images were sent,
    noise is added instead.

    Args:
        plan: the plan.
        local: the images that each site sent.
        counts: the number of images of each class at each site, in the order of the names.

    Returns:
        Pixels in 0 .. 1, and their classes, ascending.
    """
    names, held = list(counts), torch.stack(list(counts.values()))
    none = torch.zeros(len(plan.classes), dtype=torch.int64)
    sent_counts = torch.stack([local[n].counts() if n in local else none for n in names])
    stream = Stream.of(plan.seed, Purpose.SERVER, 0)
    present = torch.nonzero(held.sum(0)).flatten()

    chosen = []
    for y in present.tolist():
        images = [torch.zeros(0, *plan.image.shape)]
        for site, index in _picks(plan, held[:, y], sent_counts[:, y], stream):
            sent = local[names[site]]
            images.append(as_float(sent.images[sent.of_class(y)[index]]))
        chosen.append(_fill(plan, torch.cat(images), stream))

    return torch.cat(chosen), present.repeat_interleave(plan.ipc)


def _picks(
    plan: Plan,
    held: Int64[Tensor, " sites"],
    available: Int64[Tensor, " sites"],
    stream: Stream,
) -> Iterator[tuple[int, Int64[Tensor, " n"]]]:
    """Choose images of a class: yield a site's number, and positions among the images it sent.

    `held` and `available` count the images of the class that each site has, and sent.
    """
    sent = plan.local.images_sent

    if plan.merging != "uniform":
        weight = held if plan.merging == "weighted" else (held > 0).long()
        take = apportion(weight, available, plan.ipc)
        for site in torch.nonzero(take).flatten().tolist():
            yield site, torch.arange(int(take[site]))
        return

    senders = torch.nonzero(available).flatten()
    for place in stream.permutation(int(available.sum()))[: plan.ipc].tolist():
        yield int(senders[place // sent]), torch.tensor([place % sent])


def _fill(
    plan: Plan, images: Float32[Tensor, "n c h w"], stream: Stream
) -> Float32[Tensor, "ipc c h w"]:
    """Extend the images of a class to `ipc` images, by adding copies or noise."""
    lack = plan.ipc - len(images)
    if lack == 0:
        return images
    from_noise = plan.local.method == "dm" and plan.local.start == "noise"
    if len(images) == 0 or from_noise:
        return torch.cat([images, noise_images(plan, lack, stream)])

    filled = images[torch.arange(plan.ipc) % len(images)]
    return jitter_stored(plan, filled, torch.arange(len(images), plan.ipc), stream)


def apportion(
    held: Int64[Tensor, " k"], available: Int64[Tensor, " k"], seats: int
) -> Int64[Tensor, " k"]:
    """Distribute seats by highest averages (D'Hondt); ties go to the first site.

    Args:
        held: the weight of each site.
        available: the largest number of seats that each site can take.
        seats: the number of seats.

    Returns:
        The seats of each site; their sum is below `seats` if too few are available.

    >>> apportion(torch.tensor([90, 10]), torch.tensor([3, 3]), 4).tolist()
    [3, 1]
    """
    take = torch.zeros_like(available)
    for _ in range(min(seats, int(available.sum()))):
        average = held.double() / (take + 1)
        average[take >= available] = -1
        take[int(average.argmax())] += 1
    return take


def refine(
    plan: Plan,
    pixels: Float32[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    merged: Merged,
    context: RunContext,
) -> Float32[Tensor, "n c h w"]:
    """Refine images in `plan.refinement.passes` passes over the T steps (Algorithm 1, lines 9-14).

    Args:
        plan: the plan.
        pixels: the images to start from, in 0 .. 1.
        labels: their classes, ascending.
        merged: the merged statistics of all sites.
        context: device, progress and checkpoints.

    Returns:
        The refined images, in 0 .. 1 or slightly outside.
    """
    iterations = plan.refinement.passes * plan.steps
    if iterations == 0:
        return pixels

    work = 3 * iterations * len(labels) * plan.pae**2
    embedding = plan_embedding(plan, context.compute, work=work)
    normalisation = plan.image.normalisation

    def target(i: int, at_step: StepEmbedding) -> Target:
        return Target(merged.means[at_step.step], merged.present[at_step.step])

    def on_step(checkpoint: Checkpoint) -> None:
        context.keep(checkpoint)
        context.report(Progress(Stage.REFINEMENT, checkpoint.done, iterations))

    problem = Problem(
        embedding, labels, target, lambda i: i % plan.steps, plan.pae, plan.refinement.batch
    )
    start = context.resume or start_from(normalisation.apply(pixels))
    images = match(start, problem, plan.refinement.matching, iterations, on_step)
    return normalisation.invert(images)
