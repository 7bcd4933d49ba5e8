"""LocalDM: a site distils its own data by distribution matching, alone.

Site k, with the images D_k^y of class y, learns the synthetic images

    S_k <- argmin_S  E_psi  sum_y | mean_{x in D_k^y} psi(x) - mean_{x in S^y} psi(x) |^2

where the expectation is over random networks psi that differ between sites. This is the local part
of CollabDM. As a method of its own (the union of the S_k, without refinement), it is the first
baseline in the CollabDM paper.

Reference: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023.
"""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import Embedding, Sampling, Seeds, StepEmbedding, plan_geometry
from collabdm.matching.loop import Problem, Target, match, start_from
from collabdm.matching.run_context import RunContext
from collabdm.methods.averages import average_images
from collabdm.methods.base import stored_pixels
from collabdm.methods.start_images import noise_images, random_images
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream


def local_images(plan: Plan, data: ImageSet, seed: int, context: RunContext) -> ImageSet:
    """Make the images that a site sends, `plan.local.images` of each of its classes.

    Of averages, a class without a group of similar images sends none.

    Args:
        plan: the plan.
        data: the site's images, of the plan's classes.
        seed: the seed of the site's draws.
        context: device, progress and checkpoints.

    Returns:
        The images as a contribution stores them, sorted by class; an empty set if the plan does
        not ask for local images.
    """
    local = plan.local
    present = torch.nonzero(data.counts()).flatten()
    labels = present.repeat_interleave(local.images_sent)

    if len(labels) == 0:
        pixels = torch.zeros(0, *plan.image.shape)
    elif local.method == "random":
        pixels = random_images(plan, data, labels, seed)
    elif local.method == "averages":
        pixels, labels = average_images(plan, data, seed)
    else:
        pixels = _distil(plan, data, labels, seed, context)

    return ImageSet(stored_pixels(plan, pixels), labels, plan.classes)


def _start(plan: Plan, data: ImageSet, labels: Int64[Tensor, " n"], seed: int) -> Checkpoint:
    """Create the start of a local distillation: images in network units."""
    if plan.local.start == "noise":
        pixels = noise_images(plan, len(labels), Stream.of(seed, Purpose.LOCAL_START))
    else:
        pixels = random_images(plan, data, labels, seed)
    return start_from(plan.image.normalisation.apply(pixels))


def _distil(
    plan: Plan, data: ImageSet, labels: Int64[Tensor, " n"], seed: int, context: RunContext
) -> Float32[Tensor, "n c h w"]:
    """Match with the site's own networks and batches, and return pixels in 0 .. 1."""
    local, present = plan.local, (data.counts() > 0).to(context.compute.device)
    sampling = Sampling(seed, Purpose.LOCAL_BATCH, local.batch)

    def target(i: int, at_step: StepEmbedding) -> Target:
        means, deviations = at_step.moments(data, sampling.picks(data, i))
        return Target(means, present, deviations if local.matching.spread else None)

    def on_step(checkpoint: Checkpoint) -> None:
        context.keep(checkpoint)
        context.report(Progress(Stage.LOCAL_DISTILLATION, checkpoint.done, local.steps))

    embedding = _embedding(plan, data, len(labels), seed, context.compute)
    problem = Problem(embedding, labels, target, step_of=lambda i: i, pae=plan.pae)
    start = context.resume or _start(plan, data, labels, seed)
    images = match(start, problem, local.matching, local.steps, on_step)
    return plan.image.normalisation.invert(images)


def _embedding(plan: Plan, data: ImageSet, images: int, seed: int, compute: Compute) -> Embedding:
    """Create the embeddings of the site's own random networks."""
    real = int(data.counts().clamp_max(plan.local.batch).sum())
    work = plan.local.steps * (real + 3 * images * plan.pae**2)
    return Embedding(plan.network, plan_geometry(plan), Seeds.local(seed), compute, work=work)
