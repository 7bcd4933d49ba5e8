"""The statistics of a site under differential privacy, in the usual form.

    weight_y = max(1, round(noised count))        L_t^y = c_t + noised sum_t^y / weight_y

so that merging by weight gives the sum of all noised sums over the sum of all weights. Every class
of the plan is sent, also one that the site lacks: whether a class is present depends on its images.

Everything after the noise uses only noised numbers, so it costs no privacy.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.documents.contribution import LARGEST_TOTAL, AddedNoise, Statistics
from collabdm.documents.plan import Plan
from collabdm.documents.specs import WIRE_DTYPES
from collabdm.images import ImageSet
from collabdm.matching.class_statistics import encode
from collabdm.matching.embedding import plan_embedding
from collabdm.matching.run_context import RunContext
from collabdm.privacy.clipping import clipped_sums, public_centre
from collabdm.privacy.gaussian import NoisedSums, add_noise, mechanism_of, privacy_of
from collabdm.privacy.public_images import public_images
from collabdm.progress import Progress, Stage

#: of a class, to decide whether networks are compiled: if the real number decided, one more image
#: could change the rounding of all others
ASSUMED_IMAGES = 1000


@dataclass(frozen=True)
class PrivateSums:
    """The sums of a site before the noise is added; they must not leave it.

    `sums` are those of clipped differences from `centres`, the public centre of each step.
    """

    sums: Float64[Tensor, "T classes r"]
    counts: Float64[Tensor, " classes"]
    centres: Float32[Tensor, "T r"]


def noised_statistics(plan: Plan, data: ImageSet, context: RunContext = RunContext()) -> Statistics:
    """Compute a site's statistics, with noise that is drawn once.

    Args:
        plan: a plan with a privacy budget.
        data: the site's images.
        context: device, progress, checkpoints, and the random source of the noise.

    Returns:
        The statistics of every class of the plan.
    """
    private = private_sums(plan, data, context)
    noised = add_noise(private.sums, private.counts, mechanism_of(plan), context.random_bytes)
    return as_statistics(plan, noised, private.centres)


def private_sums(plan: Plan, data: ImageSet, context: RunContext = RunContext()) -> PrivateSums:
    """Compute the sums and counts of a site, without noise, step by step.

    Args:
        plan: a plan with a privacy budget, whose bound clips the embeddings.
        data: the site's images.
        context: device, progress and checkpoints, which contain the sums of the finished steps.

    Returns:
        The sums, the counts and the public centres.
    """
    bound, public, classes = privacy_of(plan).clip, public_images(plan), len(plan.classes)
    embedding = plan_embedding(plan, context.compute, plan.steps * classes * ASSUMED_IMAGES)

    sums = torch.zeros(plan.steps, classes, embedding.sketched_width, dtype=torch.float64)
    centres = torch.zeros(plan.steps, embedding.sketched_width)
    done = 0
    if context.resume is not None:
        done = context.resume.done
        sums[:done], centres[:done] = (context.resume.tensors[name] for name in ("sums", "centres"))

    for t in range(done, plan.steps):
        step = embedding.at(t)
        centres[t] = public_centre(step, public)
        sums[t] = clipped_sums(step, data, centres[t], bound)
        context.keep(Checkpoint(t + 1, {"sums": sums[: t + 1], "centres": centres[: t + 1]}))
        context.report(Progress(Stage.STATISTICS, t + 1, plan.steps))

    return PrivateSums(sums, data.counts().double(), centres)


def as_statistics(plan: Plan, noised: NoisedSums, centres: Float32[Tensor, "T r"]) -> Statistics:
    """Turn noised sums and counts into statistics.

    Args:
        plan: the plan, whose wire type encodes the means.
        noised: the noised sums and counts.
        centres: the public centre of each step, which is added to the means.

    Returns:
        The statistics of every class of the plan.
    """
    weights = noised.counts.round().clamp(1, plan.largest_class or LARGEST_TOTAL)
    means = centres[:, None].double() + noised.sums / weights[:, None]

    largest = torch.finfo(WIRE_DTYPES[plan.wire]).max if plan.wire != "int8" else float("inf")
    codes, scales = encode(means.clamp(-largest, largest).float(), plan.wire)

    totals = weights.long()
    steps, classes = torch.arange(plan.steps), torch.arange(len(plan.classes))
    return Statistics(steps, classes, codes, scales, totals, totals.clone())


def added_noise(plan: Plan) -> AddedNoise:
    """Describe the noise of a site's contribution to a plan with a privacy budget."""
    privacy, mechanism = privacy_of(plan), mechanism_of(plan)
    return AddedNoise(
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        clip=privacy.clip,
        steps=plan.steps,
        noise_multiplier=mechanism.multiplier,
        sigma_sums=mechanism.sums,
        sigma_counts=mechanism.counts,
    )
