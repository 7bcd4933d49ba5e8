"""DENSE: data-free one-shot federated learning. Sites send networks; the server distils their ensemble into one.

    site k     theta_k: a network trained on D_k
    ensemble   z(x) = mean_k f_k(x),  its logits
    server     in every epoch a new generator G, its codes c and random labels y make x = G(c), to lower
                   CE(z(x'), y)  +  w_bn sum_l (|m_l(x') - m_l| + |v_l(x') - v_l|)
                   - w_adv mean [argmax f(x') != argmax z(x')] KL(z(x') | f(x')),   x' = x cropped and flipped;
               the best batch joins a pool, and one pass over the pool moves the student f down
                   T^2 KL(softmax z / T | softmax f / T)

m_l and v_l are the running means and variances of the batch normalisations of the sites' networks, and m_l(x), v_l(x)
those of the batch; networks without batch normalisation have none, and the term is 0. The student of the last
epoch is the outcome; the best one on test images can be known only to who looks at them (`RunContext.watch`). The original
client network is `ConvNet:norm=none,pooling=max`, 319,242 parameters.

Reference: J. Zhang, C. Chen, B. Li, L. Lyu, S. Wu, S. Ding, C. Shen, C. Wu, "DENSE: data-free one-shot federated
learning", NeurIPS 2022.
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
)
from collabdm.methods.dense_generator import (
    Ensemble,
    Generation,
    GeneratorTraining,
    TrainingRate,
    counted_ensemble,
    ensemble_of,
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

MOST_BYTES = 2**33  # of the pool


LOOKS = 20  # at the student on its way, at most twice as many


class Dense(FrozenModel):
    """Settings; `network` is what sites train and the student is, by default the plan's."""

    network: NetworkSpec | None = None
    local: LocalTraining = LocalTraining()
    epochs: Positive = 200
    generator: Generation = Generation()
    learning_rate: TrainingRate = 0.005
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch: Positive = 256
    temperature: TrainingRate = 20.0


def spec_of(plan: Plan) -> NetworkSpec:
    """The network that sites train."""
    return plan_options(plan, Dense).network or plan.network


def new_network(plan: Plan) -> Network:
    """That network, unseeded."""
    return build(spec_of(plan), plan.image.shape, len(plan.classes))


def declare(plan: Plan) -> DeclaredTensors:
    """What a site sends: the weights, and the running statistics of batch normalisations. Raises as `check_pool`."""
    check_pool(plan)
    return declare_weights(spec_of(plan), plan)


def check_pool(plan: Plan) -> None:
    """Refuse a plan whose server would keep more than `MOST_BYTES` of images. Raises PlanError."""
    options = plan_options(plan, Dense)
    pool = options.epochs * options.generator.batch * math.prod(plan.image.shape)
    if pool > MOST_BYTES:
        raise PlanError(
            f"`options.epochs` times `options.generator.batch` images should have at most {MOST_BYTES:,} bytes, "
            f"for the server keeps them all; found {pool:,}"
        )


def shows_real_images(plan: Plan) -> bool:
    """Whether images that a site sends are, or begin as, real ones: none is sent."""
    return False


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """One site's trained network. Raises DataError or PlanError where data, name or plan do not fit."""
    check_answer(plan, data, site)
    check_pool(plan)
    local, seed = plan_options(plan, Dense).local, derive(plan.seed, "site", site)
    network = new_network(plan)
    seed_weights(network, Stream.of(seed, Purpose.NETWORK))

    train_locally(LocalTask(network, spec_of(plan), data, plan, seed), local, context)
    return answer(plan, data, site, float_weights(network))


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> DistilledModel:
    """The student of the sites' networks. Raises DocumentError as CollabDM does.

    `context.watch` is shown every site's network, both ensembles, and the student after every epoch.
    """
    ordered = checked_in_order(plan, contributions, declare(plan), allow_missing)
    networks = []
    for contribution in ordered:
        network = new_network(plan)
        load_weights(network, contribution.extra_tensors)
        networks.append(network.to(context.compute.device).eval().requires_grad_(False))
        context.watch(contribution.site, 0, networks[-1])
    ensemble = ensemble_of(networks)
    context.watch("ensemble", 0, ensemble)
    context.watch(
        "counted ensemble",
        0,
        counted_ensemble(networks, torch.stack([class_counts(plan, c) for c in ordered])),
    )
    student = Distillation(plan, ensemble, context).student()
    return DistilledModel(
        float_weights(student),
        spec_of(plan),
        plan,
        site_counts(plan, ordered),
        plan.method,
        versions(),
    )


class Distillation:
    """The server's loop: what it holds between epochs."""

    def __init__(self, plan: Plan, ensemble: Ensemble, context: RunContext) -> None:
        self.options = plan_options(plan, Dense)
        self.plan, self.ensemble, self.context, self.seed = (
            plan,
            ensemble,
            context,
            derive(plan.seed, "dense"),
        )
        self._student = new_network(plan)
        seed_weights(self._student, Stream.of(self.seed, Purpose.NETWORK))
        self._student.to(context.compute.device)
        self._optimiser = torch.optim.SGD(
            self._student.parameters(), self.options.learning_rate, self.options.momentum
        )
        most, self._size = self.options.epochs * self.options.generator.batch, 0
        seen = most * (self.options.epochs + 1) // 2  # by the student, in all epochs
        work = 3.0 * seen * multiplications(spec_of(plan), plan.image.shape)
        self._learning = training_pass(self._student, work, self.options.batch, context.compute)
        self._imagination = GeneratorTraining(
            plan,
            self.options.generator,
            self._imagined_by(ensemble),
            self._student,
            context.compute,
        )
        self._pool = torch.zeros(
            most, *plan.image.shape, dtype=torch.uint8
        )  # the first `_size` are there
        self._wanted = torch.zeros(most, len(plan.classes))  # the ensemble's logits of them

    def _imagined_by(self, ensemble: Ensemble) -> Ensemble:
        """The ensemble as the generator sees it, compiled where that pays and no layer is looked into."""
        generator, compute = self.options.generator, self.context.compute
        images = (
            self.options.epochs * generator.steps * generator.batch * (len(ensemble.networks) + 1)
        )
        function = LOGITS[compute.precision]
        if not any(map(has_batch_norm, ensemble.networks)):
            one = multiplications(spec_of(self.plan), self.plan.image.shape)
            function = compute.faster(function, 3.0 * images * one)
        return replace(ensemble, forward=function)

    def student(self) -> Network:
        """All epochs, from the kept state on; the student in evaluation mode."""
        done = self._resume() if self.context.resume else 0
        for epoch in range(done, self.options.epochs):
            stream = Stream.of(self.seed, Purpose.BASELINE, epoch)
            self._student.eval().requires_grad_(False)
            self._add(self._imagination.batch(stream))
            self._pass(stream)
            if (epoch + 1) % max(1, self.options.epochs // LOOKS) == 0:
                self.context.watch("epoch", epoch + 1, self._student.eval())
            self.context.keep(self._checkpoint(epoch + 1))
            self.context.report(
                Progress(Stage.ENSEMBLE_DISTILLATION, epoch + 1, self.options.epochs)
            )
        return self._student.eval()

    @torch.no_grad()
    def _add(self, made: UInt8[Tensor, "n c h w"]) -> None:
        """A batch joins the pool."""
        x = self.plan.image.normalisation.apply(made.to(self.context.compute.device))
        places = slice(self._size, self._size + len(made))
        with self.context.compute.autocast():
            self._pool[places], self._wanted[places] = made, self.ensemble(x).cpu()
        self._size += len(made)

    def _pass(self, stream: Stream) -> None:
        """Once over the pool."""
        self._student.train().requires_grad_(True)
        for index in stream.permutation(self._size).split(self.options.batch):
            x = self.plan.image.normalisation.apply(
                self._pool[index].to(self.context.compute.device)
            )
            self._optimiser.zero_grad()
            softened(
                self._learning(x), self._wanted[index].to(x.device), self.options.temperature
            ).backward()
            self._optimiser.step()

    def _checkpoint(self, done: int) -> Checkpoint:
        pool = {"pool": self._pool[: self._size], "wanted": self._wanted[: self._size]}
        return Checkpoint(done, pool | training_tensors(self._student, self._optimiser))

    def _resume(self) -> int:
        checkpoint = self.context.resume
        assert checkpoint is not None
        tensors = checkpoint.tensors

        self._size = len(tensors["pool"])
        self._pool[: self._size] = tensors["pool"]
        self._wanted[: self._size] = tensors["wanted"]
        restore_training(self._student, self._optimiser, tensors)
        return checkpoint.done


def softened(
    student: Float[Tensor, "n classes"], ensemble: Float[Tensor, "n classes"], temperature: float
) -> Float[Tensor, ""]:
    """T^2 KL(softmax z / T | softmax f / T), mean over images."""
    log_f, log_z = (F.log_softmax(v / temperature, 1) for v in (student, ensemble))
    return temperature**2 * F.kl_div(log_f, log_z, log_target=True, reduction="batchmean")
