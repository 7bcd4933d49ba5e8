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
from collabdm.documents.specs import Operation
from collabdm.images import ImageSet, as_float
from collabdm.matching.augment import augment, draw, expand, mosaic
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import Embedding, Sampling, Seeds, StepEmbedding, plan_geometry
from collabdm.matching.loop import Problem, Target, match, start_from
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import stored_pixels
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream

_JITTER: tuple[Operation, ...] = (
    "scale",
    "rotate",
)  # these always change an image; a flip or a shift may not
_NOISE = 0.02  # the largest change of a pixel in 0 .. 1, if the plan allows neither


def local_images(plan: Plan, data: ImageSet, seed: int, context: RunContext) -> ImageSet:
    """Make the images that a site sends, `plan.local.images` of each of its classes.

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
    else:
        pixels = _distil(plan, data, labels, seed, context)

    return ImageSet(stored_pixels(plan, pixels), labels, plan.classes)


def random_images(
    plan: Plan, data: ImageSet, labels: Int64[Tensor, " n"], seed: int
) -> Float32[Tensor, "n c h w"]:
    """Draw random real images of each class; with pae, pae^2 of them form one stored image.

    Args:
        plan: the plan.
        data: the real images.
        labels: the classes of the images to draw, ascending.
        seed: the seed of the draw.

    Returns:
        Pixels in 0 .. 1. If a small class repeats images, the repetitions are moved a little.
    """
    stream = Stream.of(seed, Purpose.LOCAL_START)
    index = []

    for y, count in zip(*labels.unique(return_counts=True), strict=True):
        members = data.of_class(int(y))
        order = members[stream.permutation(len(members))]
        index.append(order[torch.arange(int(count) * plan.pae**2) % len(members)])

    chosen = torch.cat(index)
    real = jitter(plan, as_float(data.images[chosen]), _repetitions(chosen), stream)
    return mosaic(real, plan.pae)


def jitter(
    plan: Plan, images: Float32[Tensor, "n c h w"], at: Int64[Tensor, " m"], stream: Stream
) -> Float32[Tensor, "n c h w"]:
    """Move some images a little, because equal images have equal gradients and would stay equal.

    A plan allows neither scaling nor rotation if positions in an image have a meaning; a little
    noise is then added instead.

    Args:
        plan: the plan, which names the augmentations that its images allow.
        images: pixels in 0 .. 1.
        at: positions of the images to move.
        stream: the stream of the moves.

    Returns:
        All images, those at the given positions moved.
    """
    if len(at) == 0:
        return images

    normalisation = plan.image.normalisation
    allowed = tuple(operation for operation in _JITTER if operation in plan.augment)
    moved = images.clone()

    if allowed:
        draws = draw(allowed, len(at), plan.image.side, stream)
        moved[at] = normalisation.invert(augment(normalisation.apply(images[at]), draws))
    else:
        noise = 2 * stream.uniforms(len(at), *plan.image.shape) - 1
        moved[at] = (images[at] + _NOISE * noise).clamp(0, 1)

    return moved


def jitter_stored(
    plan: Plan, images: Float32[Tensor, "n c h w"], at: Int64[Tensor, " m"], stream: Stream
) -> Float32[Tensor, "n c h w"]:
    """Move some stored images a little, like `jitter`; with pae, each small image moves separately.

    Args:
        plan: the plan.
        images: stored images, pixels in 0 .. 1.
        at: positions of the images to move.
        stream: the stream of the moves.

    Returns:
        All images, those at the given positions moved.
    """
    if plan.pae == 1 or len(at) == 0:
        return jitter(plan, images, at, stream)

    small = expand(images[at], plan.pae)
    every = torch.arange(len(small))
    images = images.clone()
    images[at] = mosaic(jitter(plan, small, every, stream), plan.pae)
    return images


def noise_images(plan: Plan, count: int, stream: Stream) -> Float32[Tensor, "n c h w"]:
    """Draw images of uniform noise.

    Args:
        plan: the plan, which states the shape of images.
        count: the number of images.
        stream: the stream of the noise.

    Returns:
        Pixels in 0 .. 1.
    """
    return stream.uniforms(count, *plan.image.shape)


def _repetitions(index: Int64[Tensor, " n"]) -> Int64[Tensor, " m"]:
    """Find the positions of values that occurred earlier."""
    seen: set[int] = set()
    repeated = []

    for position, value in enumerate(index.tolist()):
        if value in seen:
            repeated.append(position)
        seen.add(value)

    return torch.tensor(repeated, dtype=torch.int64)


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
