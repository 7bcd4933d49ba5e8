"""Recognise members by the class means of a contribution.

Let m_t be the mean sent for a class at step t, and mu_t that of the reference images of the class.
Up to constants, if embeddings were Gaussian with covariance C, the likelihood ratio of the
hypotheses "x was used" and "x was not" is increasing in

    s(x) = sum_t (m_t - mu_t)^T C^-1 (v_t(x) - mu_t)

`plain` takes the identity for C; `whitened` takes the covariance of the reference images over all
steps, plus a ridge. All of it follows from inner products over the steps, so embeddings are never
kept: with A the centred reference embeddings (N rows, all steps side by side) and a ridge of lambda
on A A^T,

    C^-1 ~ I - A^T (A A^T + lambda I)^-1 A

References: N. Homer et al., "Resolving individuals contributing trace amounts of DNA to highly
complex mixtures using high-density SNP genotyping microarrays", PLoS Genetics 2008. S. Sankararaman
et al., "Genomic privacy and limits of individual detection in a pool", Nature Genetics 2009.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from collabdm.documents.contribution import Statistics
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet, pool
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import Embedding, plan_embedding

PLAIN, WHITENED, CALIBRATED = "means", "means, whitened", "means, shadow rounds"


@dataclass(frozen=True)
class MeanScores:
    """The scores of candidates by the means of each round."""

    plain: Float32[Tensor, "rounds m"]
    whitened: Float32[Tensor, "rounds m"]


@dataclass
class Products:
    """Inner products over the steps so far, for one class: N reference images, m candidates."""

    own: Float64[Tensor, "n n"] | float = 0.0
    candidates: Float64[Tensor, "m n"] | float = 0.0
    means: Float64[Tensor, "rounds m"] | float = 0.0
    means_own: Float64[Tensor, "rounds n"] | float = 0.0

    def add(
        self,
        reference: Float32[Tensor, "n r"],
        candidates: Float32[Tensor, "m r"],
        means: Float32[Tensor, "rounds r"],
    ) -> None:
        """Add one step: the embeddings of the reference and the candidates, and the means."""
        centre = reference.mean(0)
        own, x, mean = reference - centre, candidates - centre, means - centre
        self.own = self.own + (own @ own.T).double()
        self.candidates = self.candidates + (x @ own.T).double()
        self.means = self.means + (mean @ x.T).double()
        self.means_own = self.means_own + (mean @ own.T).double()

    def scores(self) -> tuple[Float64[Tensor, "rounds m"], Float64[Tensor, "rounds m"]]:
        """Return the plain and the whitened scores."""
        own, candidates = torch.as_tensor(self.own), torch.as_tensor(self.candidates)
        means, means_own = torch.as_tensor(self.means), torch.as_tensor(self.means_own)

        ridge = own.trace().clamp_min(1e-12) / len(own)
        weights = torch.linalg.solve(own + ridge * torch.eye(len(own)).double(), means_own.T)
        return means, means - (candidates @ weights).T


@dataclass
class StepMeans:
    """The decoded means of all rounds: `values[round][class]` has one row for each step."""

    rounds: list[Statistics]
    values: list[dict[int, Float32[Tensor, "T r"]]] = field(init=False)

    def __post_init__(self) -> None:
        self.values = []
        for statistics in self.rounds:
            means = statistics.means()
            classes = enumerate(statistics.classes.tolist())
            self.values.append({y: means[:, place] for place, y in classes})

    def at(self, place: int, y: int) -> Float32[Tensor, "rounds r"]:
        """Return the means of class y in all rounds, at the given position among the steps."""
        return torch.stack([values[y][place] for values in self.values])


def mean_scores(
    plan: Plan,
    rounds: list[Statistics],
    candidates: ImageSet,
    reference: ImageSet,
    compute: Compute,
    on_step: Callable[[int], None] = lambda done: None,
) -> MeanScores:
    """Score the candidates by the means of each round.

    Args:
        plan: the plan.
        rounds: the statistics of each round, all with the same steps and classes.
        candidates: the images to score.
        reference: the attacker's own images of the same classes.
        compute: device and precision.
        on_step: receives the number of finished steps.

    Returns:
        The scores.
    """
    steps = rounds[0].steps.tolist()
    images = pool([reference, candidates])
    embedding = plan_embedding(plan, compute, work=len(steps) * len(images))
    means = StepMeans(rounds)
    products = {y: Products() for y in rounds[0].classes.tolist()}

    for place, step in enumerate(steps):
        v = embed_all(embedding, step, images)
        own, x = v[: len(reference)], v[len(reference) :]
        for y, of_class in products.items():
            at = means.at(place, y)
            of_class.add(own[reference.labels == y], x[candidates.labels == y], at)
        on_step(place + 1)

    plain = torch.zeros(len(rounds), len(candidates))
    whitened = torch.zeros(len(rounds), len(candidates))
    for y, of_class in products.items():
        index = candidates.of_class(y)
        plain[:, index], whitened[:, index] = (part.float() for part in of_class.scores())
    return MeanScores(plain, whitened)


@torch.no_grad()
def embed_all(embedding: Embedding, step: int, images: ImageSet) -> Float32[Tensor, "n r"]:
    """Embed images at a step, as the sites do: augmented and sketched."""
    at, device = embedding.at(step), torch.device(embedding.compute.device)
    parts = []
    for index in torch.arange(len(images)).split(embedding.images_per_pass(gradients=False)):
        x = embedding.geometry.normalisation.apply(images.images[index].to(device))
        parts.append(at.sketched(at.values(x, images.labels[index].to(device))).cpu())
    return torch.cat(parts)


def calibrated(
    scores: Float32[Tensor, "rounds m"], used: Bool[Tensor, "rounds m"], online: bool = True
) -> Float32[Tensor, "rounds m"]:
    """Calibrate the scores of each round with the other rounds, its shadows.

    For every candidate, the shadows that use it and those that do not give two Gaussians, whose
    variances are shared by all candidates because shadows are few. The result is their log
    likelihood ratio; `online=False` only compares with the shadows that do not use the candidate.

    Args:
        scores: the scores of each round.
        used: whether each round uses each candidate.
        online: whether to use the shadows that use the candidate.

    Returns:
        The calibrated scores.
    """
    result = torch.empty_like(scores)
    for k in range(len(scores)):
        rest = torch.arange(len(scores)) != k
        shadows, inside = scores[rest], used[rest]
        out_mean, out_variance = _gaussians(shadows, ~inside)
        result[k] = (scores[k] - out_mean) / out_variance.sqrt()
        if online:
            in_mean, in_variance = _gaussians(shadows, inside)
            result[k] = _log_density(scores[k], in_mean, in_variance) - _log_density(
                scores[k], out_mean, out_variance
            )
    return result


def _gaussians(
    scores: Float32[Tensor, "shadows m"], chosen: Bool[Tensor, "shadows m"]
) -> tuple[Float32[Tensor, " m"], Float32[Tensor, ""]]:
    """Fit a mean for each candidate, and one variance, to the chosen scores.

    A candidate without chosen scores gets the mean of all.
    """
    weights = chosen.float()
    counts = weights.sum(0)
    overall = (scores * weights).sum() / weights.sum().clamp_min(1)
    mean = torch.where(counts > 0, (scores * weights).sum(0) / counts.clamp_min(1), overall)

    freedom = (counts - 1).clamp_min(0).sum()
    within = ((scores - mean).square() * weights).sum() / freedom.clamp_min(1)
    spread = (scores - overall).square().mean()
    variance = within if float(freedom) else spread
    return mean, variance.clamp_min(1e-12)


def _log_density(
    scores: Float32[Tensor, " m"], mean: Float32[Tensor, " m"], variance: Float32[Tensor, ""]
) -> Float32[Tensor, " m"]:
    """Return the log density of Gaussians, up to a constant."""
    return -(scores - mean).square() / (2 * variance) - variance.log() / 2
