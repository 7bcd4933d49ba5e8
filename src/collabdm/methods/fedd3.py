"""FedD3: every site distils its own data into kernel inducing points (KIP).

    site k     X_s = argmin  1/2 mean | K_ts (K_ss + lambda I)^-1 y_s - y_t |^2
               over batches t of the site's data, with lambda = 1e-6 tr(K_ss) / |X_s|
    server     S = union of the sites' X_s

K is the neural tangent kernel of infinitely wide, fully connected ReLU networks with four hidden
layers, sigma_w^2 = 2 and sigma_b = 0.1. For images of d values,

    Sigma = sigma_w^2 <x, x'> / d + sigma_b^2,   Theta = Sigma;   then, for each hidden layer,
    rho   = Sigma(x, x') / sqrt(Sigma(x, x) Sigma(x', x'))
    K     = sqrt(Sigma(x, x) Sigma(x', x')) (sqrt(1 - rho^2) + rho (pi - arccos rho)) / 2 pi
    K'    = (pi - arccos rho) / 2 pi
    Sigma = sigma_w^2 K + sigma_b^2,   Theta = Sigma + sigma_w^2 K' Theta

y is one-hot, minus 1 / classes, and is not learned. The learned images start from real images,
balanced over the site's classes, and are normalised with the site's own mean and standard
deviation; they are sent as pixels. Batches are balanced too. A site stops early when its predictor
classifies nearly all images of a batch correctly.

References: R. Song, D. Liu, D. Z. Chen, A. Festag, C. Trinitis, M. Schulz, A. Knoll, "Federated
learning via decentralized dataset distillation in resource-constrained edge environments", 2023.
T. Nguyen, Z. Chen, J. Lee, "Dataset meta-learning from kernel ridge-regression", ICLR 2021.
A. Jacot, F. Gabriel, C. Hongler, "Neural tangent kernel: convergence and generalization in neural
networks", NeurIPS 2018.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64, Int64
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
from collabdm.methods.base import (
    Contributions,
    answer,
    check_answer,
    plan_options,
    site_seed,
)
from collabdm.methods.own_images import (
    OwnImages,
    balanced_labels,
    declare_images,
    image_tensors,
    images_sent,
    union,
)
from collabdm.methods.start_images import random_images
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream

HIDDEN_LAYERS, WEIGHT_VARIANCE, BIAS_VARIANCE = 4, 2.0, 0.01
RIDGE = 1e-6
MOST_IMAGES = 10_000  # per site; a float64 kernel of this many images takes 800 MB
NEARLY_PARALLEL = 1 - 1e-12  # keeps |rho| below 1, where the derivative of arccos is infinite


class FedD3(OwnImages):
    """The options: the number of images, and how they are learned.

    A batch has at most `batch` images of each class. A site stops when its predictor classifies
    more than the share `stop` of a batch correctly.
    """

    iterations: Annotated[int, Field(ge=0, le=10**6)] = 3000
    learning_rate: LearningRate = 0.004
    batch: Positive = 10
    stop: Annotated[float, Field(ge=0, le=1)] = 0.999


@dataclass(frozen=True)
class InducingProblem:
    """The learning problem of a site.

    Attributes:
        data: the site's images.
        normalisation: the map from pixels to network units, measured on these images.
        labels: the classes of the learned images.
        seed: the seed of the site's draws.
        batch: the largest number of images of each class in a batch.
    """

    data: ImageSet
    normalisation: Normalisation
    labels: Int64[Tensor, " k"]
    seed: int
    batch: int

    def real_images(self, i: int) -> Int64[Tensor, " m"]:
        """Choose the real images of iteration i: at most `batch` random images of each class."""
        stream = Stream.of(self.seed, Purpose.LOCAL_BATCH, i)
        chosen = []

        for y in torch.nonzero(self.data.counts()).flatten().tolist():
            index = self.data.of_class(y)
            if len(index) > self.batch:
                index = index[stream.integers(len(index), self.batch)]
            chosen.append(index)

        return torch.cat(chosen)


def declare(plan: Plan) -> DeclaredTensors:
    """Declare the extra tensors: images and their labels.

    Raises:
        PlanError: there are too many images for the kernels.
    """
    k = images_sent(plan, plan_options(plan, FedD3))
    if k > MOST_IMAGES:
        raise PlanError(
            f"images of a site should be at most {MOST_IMAGES:,}, because kernels are k x k; "
            f"found {k:,}: set fewer `options.images` or `options.bytes`"
        )
    return declare_images(plan, k)


def shows_real_images(plan: Plan) -> bool:
    """Return True: every image starts from a real image."""
    return True


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """Learn the inducing points of a site.

    Args:
        plan: the plan, with method fedd3.
        data: the site's images, of the plan's classes and shape.
        site: the site's name.
        context: device, progress and checkpoints.

    Returns:
        The contribution.

    Raises:
        DataError: the data does not fit the plan.
        PlanError: the name is not in the plan, the plan asks for statistics or local images, or
            there are too many images for the kernels.
    """
    check_answer(plan, data, site)
    options, seed = plan_options(plan, FedD3), site_seed(plan, site, context)

    count = declare(plan)["labels"].shape[0]
    present = torch.nonzero(data.counts()).flatten().tolist()
    labels = torch.tensor(balanced_labels(count, present))

    normalisation = measure_normalisation(data)
    problem = InducingProblem(data, normalisation, labels, seed, options.batch)
    start = context.resume
    if start is None:
        pixels = random_images(plan, data, labels, seed)
        start = Checkpoint(0, {"images": normalisation.apply(pixels)})

    learned = normalisation.invert(induce(start, problem, options, context))
    return answer(plan, data, site, image_tensors(plan, learned, labels))


def induce(
    start: Checkpoint, problem: InducingProblem, options: FedD3, context: RunContext
) -> Float32[Tensor, "k c h w"]:
    """Improve images by Adam, until the predictor is accurate or all iterations are done.

    Args:
        start: the images to start from, or the checkpoint of an interrupted run.
        problem: the site's data, and the labels of the images.
        options: iterations, learning rate and the share at which to stop.
        context: device, progress and checkpoints.

    Returns:
        The images in network units, on the CPU.
    """
    device, classes = context.compute.device, len(problem.data.classes)
    learned = start.tensors["images"].to(device).clone().requires_grad_()
    targets = centred_labels(problem.labels.to(device), classes)
    optimizer = torch.optim.Adam([learned], lr=options.learning_rate)
    restore_optimizer(optimizer, start.tensors)

    for i in range(start.done, options.iterations):
        index = problem.real_images(i)
        real = problem.normalisation.apply(problem.data.images[index]).to(device)
        labels = problem.data.labels[index].to(device)

        predicted = predict(learned, targets, real)
        if bool((predicted.argmax(1) == labels).double().mean() > options.stop):
            context.report(Progress(Stage.INDUCING_POINTS, options.iterations, options.iterations))
            break

        optimizer.zero_grad()
        regression_loss(predicted, centred_labels(labels, classes)).backward()
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
    """Unite the sites' images, sorted by class.

    Args:
        plan: the plan, with method fedd3.
        contributions: the contributions, in any order.
        context: not used.
        allow_missing: accept a round in which a class is missing at every site.

    Returns:
        The set.

    Raises:
        DocumentError: a contribution does not answer the plan, or a class is missing and
            `allow_missing` is False.
    """
    return union(plan, contributions, declare(plan), allow_missing)


def centred_labels(labels: Int64[Tensor, " n"], classes: int) -> Float64[Tensor, "n classes"]:
    """Return one-hot labels, minus 1 / classes."""
    return F.one_hot(labels, classes).double() - 1 / classes


def predict(
    support: Float32[Tensor, "k c h w"],
    targets: Float64[Tensor, "k classes"],
    x: Float32[Tensor, "m c h w"],
) -> Float64[Tensor, "m classes"]:
    """Predict labels by kernel ridge regression.

    Args:
        support: the inducing points, in network units.
        targets: their centred labels.
        x: the images to predict, in network units.

    Returns:
        The predicted centred labels.
    """
    s, t = support.flatten(1).double(), x.flatten(1).double()
    kernel = ntk(s, s)
    identity = torch.eye(len(s), dtype=torch.float64, device=s.device)
    ridge = RIDGE * kernel.diagonal().mean() * identity
    return ntk(t, s) @ torch.linalg.solve(kernel + ridge, targets)


def regression_loss(
    predicted: Float64[Tensor, "m classes"], targets: Float64[Tensor, "m classes"]
) -> Float64[Tensor, ""]:
    """Return half the mean squared error."""
    return 0.5 * (predicted - targets).square().mean()


def ntk(x: Float64[Tensor, "n d"], z: Float64[Tensor, "m d"]) -> Float64[Tensor, "n m"]:
    """Compute Theta, the neural tangent kernel of flat inputs."""
    width = x.shape[1]
    sigma = WEIGHT_VARIANCE * (x @ z.T) / width + BIAS_VARIANCE
    row = WEIGHT_VARIANCE * x.square().sum(1) / width + BIAS_VARIANCE  # Sigma(x, x), where rho is 1
    column = WEIGHT_VARIANCE * z.square().sum(1) / width + BIAS_VARIANCE
    theta = sigma

    for _ in range(HIDDEN_LAYERS):
        scale = (row[:, None] * column[None, :]).sqrt()
        rho = (sigma / scale).clamp(-NEARLY_PARALLEL, NEARLY_PARALLEL)
        angle = math.pi - rho.arccos()

        expectation = scale * ((1 - rho.square()).sqrt() + rho * angle) / (2 * math.pi)
        sigma = WEIGHT_VARIANCE * expectation + BIAS_VARIANCE
        theta = sigma + WEIGHT_VARIANCE * angle / (2 * math.pi) * theta

        row = WEIGHT_VARIANCE * row / 2 + BIAS_VARIANCE
        column = WEIGHT_VARIANCE * column / 2 + BIAS_VARIANCE

    return theta
