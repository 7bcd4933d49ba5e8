"""Distribution matching in many rounds: the naive method of the paper's section 4.1.

    round r    the server broadcasts a network psi_r; each site answers with the mean embedding of a
               batch of each class; the server merges the answers, weighted by the sites' numbers of
               images, and updates the synthetic images S by one step on the loss

                   L = sum_y | merge_k mean_{x in D_k^y} psi_r(x) - mean_{x in S^y} psi_r(x) |^2

S starts as the union of the sites' first images, which the plan's `local` describes. The outcome
equals that of CollabDM with the same number of steps in one pass, up to the rounding of its wire
type, but CollabDM needs only one round. The networks count as traffic, because this framework sends
them; replacing random networks with seeds is CollabDM's idea. `gradient_rounds` matches gradients
in the same framework.

References: R. Holland et al., "One-shot collaborative data distillation", 2024 (section 4.1).
B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.documents.distillation import Matching
from collabdm.documents.extra_tensors import TensorSpec
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.documents.specs import ROBUST_MERGING
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.embedding import Sampling, StepEmbedding, plan_embedding
from collabdm.matching.loop import Problem, Target, match, start_from
from collabdm.matching.networks import skeleton
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import (
    Settings,
    Traffic,
    check_data,
    parse_options,
    plan_options,
    stored_pixels,
)
from collabdm.methods.collabdm import contribute, start_images
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, derive
from collabdm.version import versions

COUNT_BYTES, VALUE_BYTES = 8, 4


class Means(FrozenModel):
    """The options: the number of rounds, and the optimiser of the images."""

    rounds: Positive = 100
    matching: Matching = Matching()


@dataclass(frozen=True)
class RoundSites:
    """The sites of a method with many rounds, and their data.

    Attributes:
        plan: the plan.
        data: the images of each site, by name.
        counts: the number of images of each class at each site.
    """

    plan: Plan
    data: dict[str, ImageSet]
    counts: Int64[Tensor, "sites classes"]

    @classmethod
    def of(cls, plan: Plan, data: dict[str, ImageSet]) -> "RoundSites":
        """Create the sites, and check their names, their data and the plan.

        Raises:
            DataError: a site's data does not fit the plan.
            PlanError: a name or a setting does not fit.
        """
        for name, images in data.items():
            plan.check_site(name)
            check_data(plan, images)

        if plan.steps or plan.fraction != 1:
            raise PlanError(
                f"`steps` should be 0 and `fraction` 1 for method {plan.method}; "
                f"found {plan.steps} and {plan.fraction}"
            )
        if plan.merging in ROBUST_MERGING:
            raise PlanError(
                f"`merging` should be weighted or uniform for method {plan.method}; "
                f"found {plan.merging}"
            )
        return cls(plan, data, torch.stack([images.counts() for images in data.values()]))

    def shares(self) -> Float32[Tensor, "sites classes"]:
        """Return each site's weight in each class: its share of the images, or an equal share."""
        weighted = self.plan.merging == "weighted"
        weights = (self.counts if weighted else (self.counts > 0)).double()
        return (weights / weights.sum(0).clamp_min(1)).float()

    def batches(self, r: int) -> dict[str, Int64[Tensor, " m"]]:
        """Draw the batch of round r: the positions of its images, by site."""
        chosen = {}
        for name, images in self.data.items():
            seed = derive(self.plan.seed, "site", name)
            chosen[name] = Sampling(seed, Purpose.BATCH, self.plan.batch).picks(images, r)
        return chosen

    def start(self, context: RunContext) -> tuple[Int64[Tensor, " n"], Checkpoint]:
        """Return the labels of S and its start: the first images, or the context's checkpoint."""
        plan = self.plan
        labels = torch.nonzero(self.counts.sum(0)).flatten().repeat_interleave(plan.ipc)
        if context.resume is not None:
            return labels, context.resume

        local = {
            name: contribute(plan, images, name, context.alone()).images
            for name, images in self.data.items()
        }
        counts = dict(sorted(zip(self.data, self.counts, strict=True)))
        pixels, labels = start_images(plan, local, counts)
        return labels, start_from(plan.image.normalisation.apply(pixels))

    def outcome(self, images: Tensor, labels: Tensor) -> DistilledSet:
        """Build the outcome from images in network units."""
        plan = self.plan
        pixels = stored_pixels(plan, plan.image.normalisation.invert(images))
        counts = dict(zip(self.data, self.counts.tolist(), strict=True))
        image_set = ImageSet(pixels, labels, plan.classes)
        return DistilledSet(image_set, plan, counts, plan.method, versions())

    def traffic(self, rounds: int, values: int) -> Traffic:
        """Count the bytes of all rounds: networks down; counts, answers and the first images up.

        Args:
            rounds: the number of rounds.
            values: the number of float32 values in the answer for a class.

        Returns:
            The traffic.
        """
        plan = self.plan
        network = skeleton(plan.network, plan.image.shape, len(plan.classes))
        weights = sum(parameter.numel() for parameter in network.parameters())
        down = rounds * VALUE_BYTES * weights

        image = TensorSpec(plan.image_dtype, plan.image.shape).nbytes + COUNT_BYTES
        first_images = plan.local.images_sent * image
        per_class = rounds * (values * VALUE_BYTES + COUNT_BYTES) + first_images
        present = (self.counts > 0).sum(1).tolist()
        up = {name: count * per_class for name, count in zip(self.data, present, strict=True)}
        return Traffic(rounds, up, dict.fromkeys(self.data, down))


def in_rounds(method: str, model: type[FrozenModel]) -> Callable[[Settings], Settings]:
    """Create `Method.adapt` for a method with many rounds, which sends no statistics in advance."""

    def adapt(settings: Settings) -> Settings:
        options = parse_options(settings.get("options"), model).model_dump(mode="json")
        return {"pae": 1} | settings | {"steps": 0, "method": method, "options": options}

    return adapt


def run_means(
    plan: Plan, sites: dict[str, ImageSet], context: RunContext = RunContext()
) -> tuple[DistilledSet, Traffic]:
    """Run all rounds of distribution matching.

    Args:
        plan: the plan, with method rounds-means.
        sites: the images of each site, by name.
        context: device, progress and checkpoints.

    Returns:
        The set, and the traffic of the rounds.

    Raises:
        DataError: a site's data does not fit the plan.
        PlanError: a name or a setting does not fit.
    """
    options, round_sites = plan_options(plan, Means), RoundSites.of(plan, sites)
    labels, start = round_sites.start(context)

    work = options.rounds * (3 * len(labels) * plan.pae**2 + len(sites))
    embedding = plan_embedding(plan, context.compute, work=work)
    shares, present = round_sites.shares(), round_sites.counts.sum(0) > 0

    def target(i: int, at_step: StepEmbedding) -> Target:
        batches = round_sites.batches(i)
        answers = [at_step.real_means(data, batches[name]).cpu() for name, data in sites.items()]
        return Target(weighted_sum(torch.stack(answers), shares), present)

    def on_round(checkpoint: Checkpoint) -> None:
        context.keep(checkpoint)
        context.report(Progress(Stage.ROUNDS, checkpoint.done, options.rounds))

    problem = Problem(embedding, labels, target, lambda i: i, plan.pae)
    images = match(start, problem, options.matching, options.rounds, on_round)
    traffic = round_sites.traffic(options.rounds, embedding.sketched_width)
    return round_sites.outcome(images, labels), traffic


def weighted_sum(
    answers: Float32[Tensor, "sites classes values"], shares: Float32[Tensor, "sites classes"]
) -> Float32[Tensor, "classes values"]:
    """Merge the answers of all sites, weighted by their shares."""
    return (answers.double() * shares[:, :, None].double()).sum(0).float()
