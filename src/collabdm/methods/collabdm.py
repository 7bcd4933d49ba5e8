"""CollabDM: collaborative distribution matching in one round (Algorithm 1).

    site k     S_k  local distillation            L_{t,k}^y = mean_{x in D_{t,k}^y} psi_{a_t}(x)
    server     S <- union of the S_k;  for t = 1 .. T:
               S <- S - eta grad_S  sum_y | merge_k L_{t,k}^y - mean_{x in S^y} psi_{a_t}(x) |^2

With pae (`plan.pae` = l > 1) every image of S stores l x l small ones, at the sites and at the server.

Reference: R. Holland, C. Thapa, S. A. Siddiqui, W. Shao, S. Camtepe, "One-shot collaborative data
distillation", 2024.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.checkpoint import State
from collabdm.documents.contribution import Contribution, Statistics
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet, as_float, as_uint8
from collabdm.matching.class_statistics import Merged, class_statistics, merge_in_order
from collabdm.matching.embedding import Sampling, plan_embedding
from collabdm.matching.loop import Problem, Target, match
from collabdm.matching.networks import statistics_width
from collabdm.methods.base import Contributions, Run, by_site, check_classes, check_data, checked, class_counts
from collabdm.methods.localdm import jitter_stored, local_images, noise_images
from collabdm.seeds import Purpose, Stream, derive
from collabdm.version import versions

SITES_KEPT = 32  # whose images are in memory at once while the server chooses where to start


def contribute(plan: Plan, data: ImageSet, site: str = "site-1", run: Run = Run()) -> Contribution:
    """One site's answer to the plan. The same plan, data and site name give the same bytes.

    Raises DataError or PlanError where the data or the name do not fit.
    """
    check_data(plan, data)
    plan.check_site(site)
    seed = derive(plan.seed, "site", site)

    def distilled(state: State) -> None:
        run.keep(state)
        run.progress("local distillation", state.done, plan.local.steps)

    images = local_images(plan, data, seed, run.compute, run.resume, distilled)
    steps = plan.steps_of(site)
    counts = data.counts() if plan.batch is None else data.counts().clamp_max(plan.batch)
    embedding = plan_embedding(plan, run.compute, work=len(steps) * int(counts.sum()))
    statistics = class_statistics(
        embedding,
        data,
        steps,
        Sampling(seed, Purpose.BATCH, plan.batch),
        plan.wire,
        lambda done: run.progress("statistics", done, len(steps)),
    )
    return Contribution(site, plan.digest, statistics, images, versions())


def from_real(plan: Plan) -> bool:
    """Whether images that a site sends are, or begin as, real ones."""
    local = plan.local
    return local.images > 0 and (local.method == "random" or (local.method == "dm" and local.start == "real"))


def distill(
    plan: Plan,
    contributions: Contributions,
    run: Run = Run(),
    allow_missing: bool = False,
) -> DistilledSet:
    """Refine the sites' images by the merged statistics: `ipc` images of every class that some site has.

    The order of the contributions does not matter. A mapping from the names of sites may read each when it
    is asked for (`files.ContributionFiles`): it is merged and let go, and only its counts are kept. Raises
    DocumentError where a contribution does not answer the plan, or where no site has one of the plan's
    classes (unless `allow_missing`).
    """
    sent = by_site(plan, contributions)
    held: dict[str, Int64[Tensor, " classes"]] = {}

    def statistics() -> Iterator[Statistics]:
        for contribution in checked(plan, sent, {}):
            held[contribution.site] = class_counts(plan, contribution)
            yield contribution.statistics

    merged = merge_in_order(statistics(), statistics_width(plan), plan.steps, len(plan.classes), plan.merging)
    check_classes(plan, merged.totals, allow_missing)
    pixels, labels = start_images(plan, sent, held)
    pixels = refine(plan, pixels, labels, merged, run)
    images = ImageSet(as_uint8(pixels) if plan.images == "uint8" else pixels, labels, plan.classes)
    return DistilledSet(images, plan, {site: n.tolist() for site, n in held.items()}, plan.method, versions())


def start_images(
    plan: Plan, sent: Mapping[str, Contribution], held: dict[str, Int64[Tensor, " classes"]]
) -> tuple[Float32[Tensor, "n c h w"], Int64[Tensor, " n"]]:
    """What refinement starts from (pixels in 0 .. 1): of each class, `ipc` of the images sent.

    The sites' images are taken in proportion to the images that each holds (`weighted`) or at random
    (`uniform`, as the authors' program). Where too few were sent, they are used again, moved a little,
    or noise fills the rest where the plan starts from noise. `held` are the images of each class that the
    sites hold, in the order of their names; only sites that were chosen are asked for their images.
    """
    images_of = lru_cache(SITES_KEPT)(lambda site: sent[site].images)
    names, counts = list(held), torch.stack(list(held.values()))
    stream = Stream.of(plan.seed, Purpose.SERVER, 0)
    chosen = []
    present = torch.nonzero(counts.sum(0)).flatten()
    for y in present.tolist():
        images = [torch.zeros(0, *plan.image.shape)]
        for site, index in _picks(plan, counts[:, y], stream):
            of_site = images_of(names[site])
            images.append(as_float(of_site.images[of_site.of_class(y)[index]]))
        chosen.append(_fill(plan, torch.cat(images), stream))
    return torch.cat(chosen), present.repeat_interleave(plan.ipc)


def _picks(plan: Plan, held: Int64[Tensor, " sites"], stream: Stream) -> Iterator[tuple[int, Int64[Tensor, " n"]]]:
    """Which images of a class are taken: a site's number, and positions among those that it sent."""
    sent = plan.local.images_sent
    available = (held > 0) * sent
    if plan.merging == "weighted":
        take = apportion(held, available, plan.ipc)
        yield from ((site, torch.arange(int(take[site]))) for site in torch.nonzero(take).flatten().tolist())
        return
    senders = torch.nonzero(available).flatten()
    for place in stream.permutation(int(available.sum()))[: plan.ipc].tolist():
        yield int(senders[place // sent]), torch.tensor([place % sent])


def _fill(plan: Plan, images: Float32[Tensor, "n c h w"], stream: Stream) -> Float32[Tensor, "ipc c h w"]:
    lack = plan.ipc - len(images)
    if lack == 0:
        return images
    if len(images) == 0 or plan.local.start == "noise":
        return torch.cat([images, noise_images(plan, lack, stream)])
    filled = images[torch.arange(plan.ipc) % len(images)]
    return jitter_stored(plan, filled, torch.arange(len(images), plan.ipc), stream)


def apportion(held: Int64[Tensor, " k"], available: Int64[Tensor, " k"], seats: int) -> Int64[Tensor, " k"]:
    """Seats by highest averages (D'Hondt) of `held`, nobody above `available`; ties to the first.

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
    run: Run,
) -> Float32[Tensor, "n c h w"]:
    """`plan.refinement.passes` over the T seeds (Algorithm 1, lines 9-14); pixels in 0 .. 1."""
    iterations = plan.refinement.passes * plan.steps
    if iterations == 0:
        return pixels
    normalisation = plan.image.normalisation
    state = run.resume or State(0, normalisation.apply(pixels))
    work = 3 * iterations * len(labels) * plan.pae**2
    embedding = plan_embedding(plan, run.compute, work=work)

    def target(i: int) -> Target:
        return Target(merged.means[i % plan.steps], merged.present[i % plan.steps])

    def refined(state: State) -> None:
        run.keep(state)
        run.progress("refinement", state.done, iterations)

    problem = Problem(embedding, labels, target, lambda i: i % plan.steps, plan.pae, plan.refinement.batch)
    return normalisation.invert(match(state, problem, plan.refinement.matching, iterations, refined))
