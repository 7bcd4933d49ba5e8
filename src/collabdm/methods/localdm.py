"""LocalDM: a site distils its own data by distribution matching, alone.

    S_k <- argmin_S  E_psi  sum_y | mean_{x in D_k^y} psi(x) - mean_{x in S^y} psi(x) |^2

over random networks that are the site's own. This is the local part of CollabDM, and as a method by
itself (the union of the S_k, nothing refined) the paper's first baseline.

Reference: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.checkpoint import State
from collabdm.documents.plan import Plan
from collabdm.documents.specs import Operation
from collabdm.images import ImageSet, as_float, as_uint8
from collabdm.matching.augment import augment, draw, expand, mosaic
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import Embedding, Sampling, Seeds, geometry
from collabdm.matching.loop import Problem, Target, match
from collabdm.seeds import Purpose, Stream

_JITTER: tuple[Operation, ...] = ("scale", "rotate")  # they always move an image; a flip or a shift may not


_NOISE = 0.02  # of the range of pixels, where the plan allows neither


def local_images(
    plan: Plan,
    data: ImageSet,
    seed: int,
    compute: Compute,
    state: State | None = None,
    on_step: Callable[[State], None] = lambda state: None,
) -> ImageSet:
    """The images that a site sends: `plan.local.images` of every class it holds, as they travel.

    `data` has the Plan's classes; `seed` names the site's own draws; `state` resumes a run.
    """
    local = plan.local
    present = torch.nonzero(data.counts()).flatten()
    labels = present.repeat_interleave(local.images_sent)
    if len(labels) == 0:
        pixels = torch.zeros(0, *plan.image.shape)
    elif local.method == "random":
        pixels = random_images(plan, data, labels, seed)
    else:
        pixels = _distil(plan, data, labels, seed, compute, state, on_step)
    return ImageSet(as_uint8(pixels) if plan.images == "uint8" else pixels, labels, plan.classes)


def random_images(plan: Plan, data: ImageSet, labels: Int64[Tensor, " n"], seed: int) -> Float32[Tensor, "n c h w"]:
    """Random real images of each class (pixels in 0 .. 1); with pae, each packs pae^2 of them."""
    stream = Stream.of(seed, Purpose.LOCAL_START)
    index = []
    for y, count in zip(*labels.unique(return_counts=True), strict=True):
        held = data.of_class(int(y))
        index.append(held[stream.permutation(len(held))])
        index[-1] = index[-1][torch.arange(int(count) * plan.pae**2) % len(held)]
    chosen = torch.cat(index)
    real = jitter(plan, as_float(data.images[chosen]), _repeats(chosen), stream)
    return mosaic(real, plan.pae)


def jitter(
    plan: Plan, images: Float32[Tensor, "n c h w"], at: Int64[Tensor, " m"], stream: Stream
) -> Float32[Tensor, "n c h w"]:
    """Move the images at the given positions a little: equal images have equal gradients and stay equal for ever.

    Where the plan neither scales nor rotates, a place in an image has a meaning: then values move, by a little noise.
    """
    if len(at) == 0:
        return images
    normalisation, allowed = plan.image.normalisation, tuple(o for o in _JITTER if o in plan.augment)
    moved = images.clone()
    if allowed:
        turned = augment(normalisation.apply(images[at]), draw(allowed, len(at), plan.image.side, stream))
        moved[at] = normalisation.invert(turned)
    else:
        noise = 2 * stream.uniforms(len(at), *plan.image.shape) - 1
        moved[at] = (images[at] + _NOISE * noise).clamp(0, 1)
    return moved


def jitter_stored(
    plan: Plan, images: Float32[Tensor, "n c h w"], at: Int64[Tensor, " m"], stream: Stream
) -> Float32[Tensor, "n c h w"]:
    """As `jitter`, for stored images: with pae, each of the small images moves by itself."""
    if plan.pae == 1 or len(at) == 0:
        return jitter(plan, images, at, stream)
    small = expand(images[at], plan.pae)
    images = images.clone()
    images[at] = mosaic(jitter(plan, small, torch.arange(len(small)), stream), plan.pae)
    return images


def noise_images(plan: Plan, count: int, stream: Stream) -> Float32[Tensor, "n c h w"]:
    """Uniform noise, pixels in 0 .. 1."""
    return stream.uniforms(count, *plan.image.shape)


def _repeats(index: Int64[Tensor, " n"]) -> Int64[Tensor, " m"]:
    """Positions whose value has stood before."""
    seen: set[int] = set()
    again = [i for i, value in enumerate(index.tolist()) if value in seen or seen.add(value)]  # type: ignore[func-returns-value]
    return torch.tensor(again, dtype=torch.int64)


def _distil(
    plan: Plan,
    data: ImageSet,
    labels: Int64[Tensor, " n"],
    seed: int,
    compute: Compute,
    state: State | None,
    on_step: Callable[[State], None],
) -> Float32[Tensor, "n c h w"]:
    local, normalisation = plan.local, plan.image.normalisation
    if state is None:
        noise = local.start == "noise"
        stream = Stream.of(seed, Purpose.LOCAL_START)
        start = noise_images(plan, len(labels), stream) if noise else random_images(plan, data, labels, seed)
        state = State(0, normalisation.apply(start))
    per_step = int(data.counts().clamp_max(local.batch).sum()) + 3 * len(labels) * plan.pae**2
    embedding = Embedding(plan.network, geometry(plan), Seeds.local(seed), compute, work=local.steps * per_step)
    sampling = Sampling(seed, Purpose.LOCAL_BATCH, local.batch)
    present = (data.counts() > 0).to(compute.device)

    def target(i: int) -> Target:
        means, deviations = embedding.moments(data, sampling.picks(data, i))
        return Target(means, present, deviations if local.matching.spread else None)

    problem = Problem(embedding, labels, target, step_of=lambda i: i, pae=plan.pae)
    images = match(state, problem, local.matching, local.steps, on_step)
    return normalisation.invert(images)
