"""Recognise members by the loss of networks trained on the set that a round releases.

    loss          s(x) = mean over networks of log p_y(x)
    shadow rounds phi(x) = log(p_y(x) / (1 - p_y(x))), less its mean over rounds without x

where p_y(x) is the probability that a network gives the candidate's own class. The second is the
offline likelihood-ratio attack, with one variance for all candidates.

References: S. Yeom et al., "Privacy risk in machine learning: analyzing the connection to
overfitting", CSF 2018. N. Carlini et al., "Membership inference attacks from first principles", S&P
2022 (LiRA).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from collabdm.documents.outcomes import DistilledSet
from collabdm.images import ImageSet
from collabdm.lab.audit.settings import AuditSettings
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_geometry
from collabdm.scoring.training import Task, Trainer, network_seed, recipe_of, training_set

LOSS, OFFLINE = "loss", "loss, shadow rounds"
LARGEST_LOGIT = 30.0  # keeps log-odds finite in float32


@dataclass(frozen=True)
class LossScores:
    """The scores of candidates by networks trained on a set: log p_y, and its log-odds."""

    log_probability: Float32[Tensor, " m"]
    log_odds: Float32[Tensor, " m"]


def loss_scores(
    distilled: DistilledSet,
    candidates: ImageSet,
    settings: AuditSettings,
    compute: Compute,
    on_epoch: Callable[[int], None] = lambda done: None,
) -> LossScores:
    """Train networks on a set, and score the candidates.

    Args:
        distilled: the set.
        candidates: the images to score.
        settings: the number of networks and epochs, and the seed.
        compute: device and precision.
        on_epoch: receives the number of finished epochs of all networks.

    Returns:
        The scores, averaged over the networks.
    """
    plan = distilled.plan
    recipe = recipe_of("short", settings.epochs)
    task = Task(plan.network, training_set(distilled), plan_geometry(plan), recipe)
    trainer = Trainer(task, compute, settings.networks)

    log_probabilities, log_odds = [], []
    for trial in range(settings.networks):
        earlier = trial * settings.epochs
        seed = network_seed(settings.seed, plan.network.name, trial)
        trainer.train(seed, lambda done, earlier=earlier: on_epoch(earlier + done))  # type: ignore[misc]
        own = own_class(trainer.logits(candidates).log_softmax(1), candidates)
        log_probabilities.append(own)
        log_odds.append(own - torch.log(-torch.expm1(own)).clamp_min(-LARGEST_LOGIT))

    return LossScores(torch.stack(log_probabilities).mean(0), torch.stack(log_odds).mean(0))


def own_class(values: Float32[Tensor, "m classes"], images: ImageSet) -> Float32[Tensor, " m"]:
    """Return each image's value for its own class."""
    return values.gather(1, images.labels[:, None])[:, 0]
