"""DENSE: data-free one-shot federated learning. The server distils an ensemble of sites' networks.

    site k     trains a network f_k on D_k, and sends its weights theta_k
    ensemble   has the logits  z(x) = mean_k f_k(x)
    server     in every epoch, trains a new generator to make images on which the ensemble is
               confident and the student f disagrees with it (`dense_generator`), adds the best
               batch to a pool, and trains the student, in one pass over the pool, on the loss

                   T^2 KL(softmax z / T | softmax f / T)

The outcome is the student of the last epoch; choosing the best epoch would need test images, which
the server does not have (a simulation tests students through `RunContext.watch`). In the original
method, the network of the sites is `ConvNet:norm=none,pooling=max`, with 319,242 parameters.

Reference: J. Zhang, C. Chen, B. Li, L. Lyu, S. Wu, S. Ding, C. Shen, C. Wu, "DENSE: data-free
one-shot federated learning", NeurIPS 2022.
"""

import math
from dataclasses import replace
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.documents.contribution import Contribution
from collabdm.documents.extra_tensors import DeclaredTensors
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import DistilledModel
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.compute import LOGITS
from collabdm.matching.network_size import multiplications
from collabdm.matching.networks import Network, build, has_batch_norm, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.matching.weights import declare_weights, float_weights, load_weights
from collabdm.methods.base import (
    Contributions,
    answer,
    check_answer,
    checked_in_order,
    class_counts,
    plan_options,
    site_counts,
    site_seed,
)
from collabdm.methods.dense_generator import (
    Ensemble,
    Generation,
    GeneratorTraining,
    TrainingRate,
    counted_ensemble,
    mean_ensemble,
)
from collabdm.methods.local_training import (
    LocalTask,
    LocalTraining,
    restore_training,
    train_locally,
    training_pass,
    training_tensors,
)
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream, derive
from collabdm.version import versions

MOST_POOL_BYTES = 2**33
WATCHED_EPOCHS = 20  # `RunContext.watch` sees the student about this often, at most twice as often


class Dense(FrozenModel):
    """The options of DENSE.

    `network` is the network of the sites and of the student; if it is None, the plan's is used.
    """

    network: NetworkSpec | None = None
    local: LocalTraining = LocalTraining()
    epochs: Positive = 200
    generator: Generation = Generation()
    learning_rate: TrainingRate = 0.005
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch: Positive = 256
    temperature: TrainingRate = 20.0


def declare(plan: Plan) -> DeclaredTensors:
    """Declare the extra tensors: the weights of a site's network.

    Raises:
        PlanError: the server's pool would be too large.
    """
    check_pool(plan)
    return declare_weights(network_spec(plan), plan)


def shows_real_images(plan: Plan) -> bool:
    """Return False: no images are sent."""
    return False


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """Train a network on a site's data.

    Args:
        plan: the plan, with method dense.
        data: the site's images, of the plan's classes and shape.
        site: the site's name.
        context: device, progress and checkpoints.

    Returns:
        The contribution.

    Raises:
        DataError: the data does not fit the plan.
        PlanError: the name is not in the plan, the plan asks for statistics or local images, or the
            server's pool would be too large.
    """
    check_answer(plan, data, site)
    check_pool(plan)
    spec, seed = network_spec(plan), site_seed(plan, site, context)

    network = build(spec, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(seed, Purpose.NETWORK))
    task = LocalTask(network, spec, data, plan, seed)
    train_locally(task, plan_options(plan, Dense).local, context)

    return answer(plan, data, site, float_weights(network))


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> DistilledModel:
    """Distil the sites' networks into a student.

    Args:
        plan: the plan, with method dense.
        contributions: the contributions, in any order.
        context: device, progress and checkpoints; `watch` receives every site's network, both
            ensembles, and the student during its training.
        allow_missing: accept a round in which a class is missing at every site.

    Returns:
        The network.

    Raises:
        DocumentError: a contribution does not answer the plan, or a class is missing and
            `allow_missing` is False.
    """
    ordered = checked_in_order(plan, contributions, declare(plan), allow_missing)
    spec, networks = network_spec(plan), []

    for contribution in ordered:
        network = build(spec, plan.image.shape, len(plan.classes))
        load_weights(network, contribution.extra_tensors)
        networks.append(network.to(context.compute.device).eval().requires_grad_(False))
        context.watch(contribution.site, 0, network)

    ensemble = mean_ensemble(networks)
    counts = torch.stack([class_counts(plan, contribution) for contribution in ordered])
    context.watch("ensemble", 0, ensemble)
    context.watch("counted ensemble", 0, counted_ensemble(networks, counts))

    weights = float_weights(EnsembleDistillation(plan, ensemble, context).train())
    sites = site_counts(plan, ordered)
    return DistilledModel(weights, spec, plan, sites, plan.method, versions())


def network_spec(plan: Plan) -> NetworkSpec:
    """Return the network of the sites and of the student."""
    return plan_options(plan, Dense).network or plan.network


def check_pool(plan: Plan) -> None:
    """Check that the server's pool has at most `MOST_POOL_BYTES`.

    Raises:
        PlanError: the pool has more bytes.
    """
    options = plan_options(plan, Dense)
    size = options.epochs * options.generator.batch * math.prod(plan.image.shape)
    if size > MOST_POOL_BYTES:
        raise PlanError(
            "`options.epochs` times `options.generator.batch` images should have at most "
            f"{MOST_POOL_BYTES:,} bytes, because the server stores them all; found {size:,}: "
            "set fewer of either"
        )


class EnsembleDistillation:
    """The loop in which the server trains the student on a growing pool of generated images."""

    def __init__(self, plan: Plan, ensemble: Ensemble, context: RunContext) -> None:
        """Build the student and the pool.

        Args:
            plan: the plan, with method dense.
            ensemble: the sites' networks.
            context: device, progress and checkpoints.
        """
        self.plan, self.ensemble, self.context = plan, ensemble, context
        self.options, self.seed = plan_options(plan, Dense), derive(plan.seed, "dense")
        options, compute, spec = self.options, context.compute, network_spec(plan)

        self.student = build(spec, plan.image.shape, len(plan.classes))
        seed_weights(self.student, Stream.of(self.seed, Purpose.NETWORK))
        self.student.to(compute.device)
        self._optimizer = torch.optim.SGD(
            self.student.parameters(), options.learning_rate, options.momentum
        )

        capacity = options.epochs * options.generator.batch
        seen = capacity * (options.epochs + 1) // 2  # images that the student sees in all epochs
        work = 3.0 * seen * multiplications(spec, plan.image.shape)
        self._logits = training_pass(self.student, work, options.batch, compute)

        teacher = self._compiled(ensemble)
        self._generation = GeneratorTraining(
            plan, options.generator, teacher, self.student, compute
        )
        self._size = 0  # the number of images in the pool
        self._pool = torch.zeros(capacity, *plan.image.shape, dtype=torch.uint8)
        self._targets = torch.zeros(capacity, len(plan.classes))  # the ensemble's logits

    def train(self) -> Network:
        """Run the remaining epochs, and return the student in evaluation mode."""
        epochs = self.options.epochs

        for epoch in range(self._resume(), epochs):
            stream = Stream.of(self.seed, Purpose.BASELINE, epoch)
            self.student.eval().requires_grad_(False)
            self._add(self._generation.batch(stream))
            self._pass(stream)

            if (epoch + 1) % max(1, epochs // WATCHED_EPOCHS) == 0:
                self.context.watch("epoch", epoch + 1, self.student.eval())
            self.context.keep(self._checkpoint(epoch + 1))
            self.context.report(Progress(Stage.ENSEMBLE_DISTILLATION, epoch + 1, epochs))

        return self.student.eval()

    def _compiled(self, ensemble: Ensemble) -> Ensemble:
        """Compile the ensemble for the generator, if that saves time and there is no batch norm."""
        generator, compute = self.options.generator, self.context.compute
        function = LOGITS[compute.precision]

        if not any(map(has_batch_norm, ensemble.networks)):
            passes = len(ensemble.networks) + 1
            images = self.options.epochs * generator.steps * generator.batch * passes
            per_image = multiplications(network_spec(self.plan), self.plan.image.shape)
            function = compute.faster(function, 3.0 * images * per_image)

        return replace(ensemble, forward=function)

    @torch.no_grad()
    def _add(self, images: UInt8[Tensor, "n c h w"]) -> None:
        """Add a batch, and the ensemble's logits for it, to the pool."""
        x = self.plan.image.normalisation.apply(images.to(self.context.compute.device))
        places = slice(self._size, self._size + len(images))

        self._pool[places] = images
        with self.context.compute.autocast():
            self._targets[places] = self.ensemble(x).cpu()
        self._size += len(images)

    def _pass(self, stream: Stream) -> None:
        """Train the student once over the pool."""
        device = self.context.compute.device
        self.student.train().requires_grad_(True)

        for index in stream.permutation(self._size).split(self.options.batch):
            x = self.plan.image.normalisation.apply(self._pool[index].to(device))
            targets = self._targets[index].to(device)
            self._optimizer.zero_grad()
            distillation_loss(self._logits(x), targets, self.options.temperature).backward()
            self._optimizer.step()

    def _checkpoint(self, done: int) -> Checkpoint:
        pool = {"pool": self._pool[: self._size], "wanted": self._targets[: self._size]}
        return Checkpoint(done, pool | training_tensors(self.student, self._optimizer))

    def _resume(self) -> int:
        """Load the context's checkpoint, if any, and return the number of finished epochs."""
        checkpoint = self.context.resume
        if checkpoint is None:
            return 0
        tensors = checkpoint.tensors

        self._size = len(tensors["pool"])
        self._pool[: self._size] = tensors["pool"]
        self._targets[: self._size] = tensors["wanted"]
        restore_training(self.student, self._optimizer, tensors)
        return checkpoint.done


def distillation_loss(
    student: Float[Tensor, "n classes"], ensemble: Float[Tensor, "n classes"], temperature: float
) -> Float[Tensor, ""]:
    """Compute the distillation loss T^2 KL(softmax z / T | softmax f / T).

    Args:
        student: f, the student's logits.
        ensemble: z, the ensemble's logits.
        temperature: T, the temperature.

    Returns:
        The mean over the images.
    """
    log_f, log_z = (F.log_softmax(logits / temperature, 1) for logits in (student, ensemble))
    return temperature**2 * F.kl_div(log_f, log_z, log_target=True, reduction="batchmean")
