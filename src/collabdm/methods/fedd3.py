"""FedD3: every site distils alone, by kernel inducing points (KIP) with the neural tangent kernel; a union follows.

    site k     min over X_s of  1/2 mean | K_ts (K_ss + lambda I)^-1 y_s - y_t |^2,   lambda = 1e-6 tr(K_ss) / k
    server     S = union of the sites' X_s

K is the kernel of infinitely wide, fully connected ReLU networks with four hidden layers, sigma_w^2 = 2 and
sigma_b = 0.1. With d numbers in an image,

    Sigma = sigma_w^2 <x, x'> / d + sigma_b^2,   Theta = Sigma;   then, once for each hidden layer,
    rho   = Sigma(x, x') / sqrt(Sigma(x, x) Sigma(x', x'))
    K     = sqrt(Sigma(x, x) Sigma(x', x')) (sqrt(1 - rho^2) + rho (pi - arccos rho)) / 2 pi
    K'    = (pi - arccos rho) / 2 pi
    Sigma = sigma_w^2 K + sigma_b^2,   Theta = Sigma + sigma_w^2 K' Theta

y is one-hot, less 1 / classes, and is not learned. The images begin as real ones, balanced over the classes that the
site holds, normalised with the site's own mean and std; they travel as pixels. Batches are balanced too. A site
stops early when its predictor is right on nearly all of a batch.

References: R. Song, D. Liu, D. Z. Chen, A. Festag, C. Trinitis, M. Schulz, A. Knoll, "Federated learning via
decentralized dataset distillation in resource-constrained edge environments", 2023. T. Nguyen, Z. Chen, J. Lee,
"Dataset meta-learning from kernel ridge-regression", ICLR 2021. A. Jacot, F. Gabriel, C. Hongler, "Neural tangent
kernel: convergence and generalization in neural networks", NeurIPS 2018.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64
from pydantic import Field
from torch import Tensor

from collabdm.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from collabdm.documents.contribution import Contribution
from collabdm.documents.extra_tensors import DeclaredTensors
from collabdm.documents.frozen_model import LearningRate, Positive
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet, Normalisation, measure_normalisation
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import Contributions, answer, balanced_labels, check_answer, plan_options
from collabdm.methods.localdm import random_images
from collabdm.methods.own_images import OwnImages, declare_images, image_tensors, images_sent, union
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream, derive

HIDDEN_LAYERS, WEIGHT_VARIANCE, BIAS_VARIANCE = 4, 2.0, 0.01


RIDGE = 1e-6


MOST_IMAGES = 10_000  # of a site: a kernel of so many has 800 MB


NEARLY_PARALLEL = 1 - 1e-12  # of rho: the slope of K' is infinite at 1, where it does not matter


class FedD3(OwnImages):
    """Settings: how many images, and how they are learned."""

    iterations: Annotated[int, Field(ge=0, le=10**6)] = 3000
    learning_rate: LearningRate = 0.004
    batch: Positive = 10
    stop: Annotated[float, Field(ge=0, le=1)] = 0.999


@dataclass(frozen=True)
class Inducing:
    """One site's problem: its data as networks see it, and the labels of what it learns."""

    data: ImageSet
    normalisation: Normalisation
    labels: Int64[Tensor, " k"]
    seed: int
    batch: int

    def targets(self, i: int) -> Int64[Tensor, " m"]:
        """Positions of the batch of iteration i: all of each class held, or `batch` drawn where there are more."""
        stream = Stream.of(self.seed, Purpose.LOCAL_BATCH, i)
        chosen = []
        for y in torch.nonzero(self.data.counts()).flatten().tolist():
            index = self.data.of_class(y)
            chosen.append(
                index
                if len(index) <= self.batch
                else index[stream.integers(len(index), self.batch)]
            )
        return torch.cat(chosen)


def declare(plan: Plan) -> DeclaredTensors:
    """What a site sends: its images and their labels. Raises PlanError where they are too many for their kernels."""
    k = images_sent(plan, plan_options(plan, FedD3))
    if k > MOST_IMAGES:
        raise PlanError(
            f"images of a site should be at most {MOST_IMAGES:,}, for kernels are k x k; found {k:,}"
        )
    return declare_images(plan, k)


def shows_real_images(plan: Plan) -> bool:
    """Whether images that a site sends are, or begin as, real ones: all do."""
    return True


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """One site's inducing points. Raises DataError or PlanError where data, name or plan do not fit."""
    check_answer(plan, data, site)
    options, seed, sent = plan_options(plan, FedD3), derive(plan.seed, "site", site), declare(plan)
    present = torch.nonzero(data.counts()).flatten().tolist()
    labels = torch.tensor(balanced_labels(sent["labels"].shape[0], present))
    problem = Inducing(data, measure_normalisation(data), labels, seed, options.batch)
    if context.resume is None:
        pixels = random_images(plan, data, labels, seed)
        start = Checkpoint(0, {"images": problem.normalisation.apply(pixels)})
    else:
        start = context.resume
    learned = problem.normalisation.invert(induce(start, problem, options, context))
    return answer(plan, data, site, image_tensors(plan, learned, labels))


def induce(start: Checkpoint, problem: Inducing, options: FedD3, context: RunContext) -> Tensor:
    """Move the images down the loss, from `start` until the predictor is right or the iterations are over."""
    device = context.compute.device
    learned = start.tensors["images"].to(device).clone().requires_grad_()
    optimizer = torch.optim.Adam([learned], lr=options.learning_rate)
    restore_optimizer(optimizer, start.tensors)
    classes = len(problem.data.classes)
    for i in range(start.done, options.iterations):
        index = problem.targets(i)
        real = problem.normalisation.apply(problem.data.images[index]).to(device)
        wanted = problem.data.labels[index].to(device)
        predicted = predict(learned, centred(problem.labels.to(device), classes), real)
        if bool((predicted.argmax(1) == wanted).double().mean() > options.stop):
            context.report(Progress(Stage.INDUCING_POINTS, options.iterations, options.iterations))
            break
        optimizer.zero_grad()
        loss_of(predicted, centred(wanted, classes)).backward()
        optimizer.step()
        tensors = {"images": learned.detach(), **optimizer_tensors(optimizer)}
        context.keep(Checkpoint(i + 1, tensors))
        context.report(Progress(Stage.INDUCING_POINTS, i + 1, options.iterations))
    return learned.detach().cpu()


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> DistilledSet:
    """The union of the sites' images, by class. Raises DocumentError as CollabDM does."""
    return union(plan, contributions, declare(plan), allow_missing)


def centred(labels: Int64[Tensor, " n"], classes: int) -> Float64[Tensor, "n classes"]:
    """One-hot, less 1 / classes."""
    return F.one_hot(labels, classes).double() - 1 / classes


def predict(
    support: Tensor, y: Float64[Tensor, "k classes"], x: Tensor
) -> Float64[Tensor, "m classes"]:
    """Kernel ridge regression from the inducing points `support` at the images `x`, both in network units."""
    s, t = support.flatten(1).double(), x.flatten(1).double()
    inner = ntk(s, s)
    ridge = (
        RIDGE * inner.diagonal().mean() * torch.eye(len(s), dtype=torch.float64, device=s.device)
    )
    return ntk(t, s) @ torch.linalg.solve(inner + ridge, y)


def loss_of(
    predicted: Float64[Tensor, "m classes"], y: Float64[Tensor, "m classes"]
) -> Float64[Tensor, ""]:
    """Half the mean squared error."""
    return 0.5 * (predicted - y).square().mean()


def ntk(x: Float64[Tensor, "n d"], z: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    """Theta of flat inputs."""
    width = x.shape[1]
    sigma = WEIGHT_VARIANCE * (x @ z.T) / width + BIAS_VARIANCE
    row = WEIGHT_VARIANCE * x.square().sum(1) / width + BIAS_VARIANCE  # Sigma(x, x), where rho is 1
    column = WEIGHT_VARIANCE * z.square().sum(1) / width + BIAS_VARIANCE
    theta = sigma
    for _ in range(HIDDEN_LAYERS):
        scale = (row[:, None] * column[None, :]).sqrt()
        rho = (sigma / scale).clamp(-NEARLY_PARALLEL, NEARLY_PARALLEL)
        angle = math.pi - rho.arccos()
        sigma = (
            WEIGHT_VARIANCE * scale * ((1 - rho.square()).sqrt() + rho * angle) / (2 * math.pi)
            + BIAS_VARIANCE
        )
        theta = sigma + WEIGHT_VARIANCE * angle / (2 * math.pi) * theta
        row = WEIGHT_VARIANCE * row / 2 + BIAS_VARIANCE
        column = WEIGHT_VARIANCE * column / 2 + BIAS_VARIANCE
    return theta
