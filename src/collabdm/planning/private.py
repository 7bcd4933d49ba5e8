"""Settings of plans with a privacy budget: defaults, and the bound C of the embeddings.

Noise grows with sqrt(T) C, so such plans have few steps, and send nothing but statistics of all
images of a class. The server starts from noise and goes through the few steps many times.

C is the median distance of public images, which a program draws from the plan's seed, from their
centre, so no data is needed. Real images lie a little further away (median of CIFAR-10 10 %,
Fashion-MNIST 8 %, MNIST 22 %), so most of them are shortened by about as much.
"""

from typing import Any

import torch

from collabdm.documents.plan import Plan
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_embedding
from collabdm.privacy.clipping import embed_all
from collabdm.privacy.public_images import public_images

Settings = dict[str, Any]

PRIVATE_DEFAULTS: Settings = {
    "steps": 20,
    "batch": None,
    "wire": "float32",
    "merging": "weighted",
    "local": {"method": "none"},
    "refinement": {"passes": 40, "matching": {"schedule": "cosine"}},
}

MEASURED_STEPS = 3  # of which the distances are measured


def has_budget(settings: Settings) -> bool:
    """Return whether settings of a Plan ask for a privacy budget."""
    return settings.get("privacy") is not None


def with_private_defaults(settings: Settings) -> Settings:
    """Fill in the settings that suit a privacy budget, unless the user sets them."""
    return filled(settings, PRIVATE_DEFAULTS) if has_budget(settings) else settings


def filled(settings: Settings, defaults: Settings) -> Settings:
    """Fill settings in with defaults, at all levels."""
    merged = dict(settings)
    for key, value in defaults.items():
        own = merged.setdefault(key, value)
        if isinstance(own, dict) and isinstance(value, dict):
            merged[key] = filled(own, value)
    return merged


def with_clip(settings: Settings, plan: Plan) -> Settings:
    """Add the bound C to a privacy budget that lacks it.

    Args:
        settings: fields of a Plan; `privacy` may lack `clip`.
        plan: the same plan without a privacy budget.

    Returns:
        The settings, with `privacy.clip`.
    """
    privacy: Any = settings["privacy"]
    if not isinstance(privacy, dict) or privacy.get("clip") is not None:
        return settings
    return settings | {"privacy": privacy | {"clip": public_distance(plan)}}


def public_distance(plan: Plan) -> float:
    """Measure the median distance of public images from their centre, to three digits."""
    public = public_images(plan)
    embedding = plan_embedding(plan, Compute())
    values = [embed_all(embedding.at(t), public) for t in range(min(plan.steps, MEASURED_STEPS))]
    distances = torch.cat([(v - v.mean(0)).norm(dim=1) for v in values])
    return float(f"{float(distances.median()):.3g}")
