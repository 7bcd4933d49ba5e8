"""Small explicit plans, data and documents: 8 x 8 images, three classes, a network of 8 filters."""

from collections.abc import Sequence
from typing import Any

import torch

from collabdm.documents.contribution import Contribution, Statistics
from collabdm.documents.outcomes import DistilledModel, DistilledSet, DistilledSteps
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.images import ImageSet
from collabdm.matching.networks import build, seed_weights
from collabdm.matching.weights import float_weights
from collabdm.methods.collabdm import contribute
from collabdm.methods.registry import METHODS
from collabdm.planning.make import make_plan
from collabdm.rounds.policy import Policy
from collabdm.seeds import Purpose, Stream

CLASSES = ("cat", "dog", "owl")
GREY = ImageSpec(channels=1, side=8, mean=(0.5,), std=(0.25,))
COLOUR = ImageSpec(channels=3, side=8, mean=(0.5, 0.25, 0.375), std=(0.25, 0.5, 0.125))
NETWORK = NetworkSpec(width=8, depth=1)
WIDTH = 8 * 4 * 4  # of NETWORK's embedding
VERSIONS = {"collabdm": "0", "torch": "0"}
#: a policy that lets everything leave a site, because tiny data is below every default limit
OPEN = Policy(raw_images=True, smallest_class=1, largest_ratio=1e6)

#: options with which each method runs in a second; methods without options are not listed
OPTIONS: dict[str, dict[str, Any]] = {
    "coreset": {"images": 4},
    "fedd3": {"images": 4, "iterations": 5, "stop": 1},
    "dosfl": {"steps": 2, "images": 3, "iterations": 4, "batch": 4, "passes": 2, "window": 2},
    "dense": {
        "local": {"epochs": 2, "batch": 4},
        "epochs": 3,
        "batch": 8,
        "generator": {"batch": 8, "steps": 2, "noise": 4},
    },
    "rounds-means": {"rounds": 3},
    "rounds-gradients": {"rounds": 3, "refresh": 2, "updates": 2},
    "fedavg": {"rounds": 2, "local": {"epochs": 1, "batch": 4}},
}


def tiny_plan(image: ImageSpec = GREY, classes: tuple[str, ...] = CLASSES, **settings: Any) -> Plan:
    small: dict[str, Any] = {
        "seed": 7,
        "sites": 3,
        "ipc": 2,
        "steps": 3,
        "batch": None,
        "network": NETWORK,
        "wire": "float32",
        "local": {"steps": 2, "batch": 4},
    }
    return make_plan(classes, image, **small | settings)


def method_plan(method: str, **changes: Any) -> Plan:
    """A plan of a method: small settings with changes, as the method adapts them."""
    settings: dict[str, Any] = {
        "seed": 7,
        "sites": 2,
        "ipc": 2,
        "steps": 3,
        "batch": 3,
        "network": NETWORK,
        "local": {"steps": 2, "batch": 2},
        "options": OPTIONS.get(method),
    }
    adapted = METHODS[method].adapt(settings | changes)
    return make_plan(CLASSES, GREY, **{"method": method} | adapted)


def fixed_plan(**changes: Any) -> Plan:
    """A plan of numbers that no network computed: it has no probe."""
    fields: dict[str, Any] = {
        "classes": CLASSES,
        "image": GREY,
        "seed": 7,
        "sites": 2,
        "ipc": 1,
        "steps": 2,
        "network": NETWORK,
        "sketch": 4,
        "local": {"images": 1},
    }
    return Plan(**fields | changes)


def tiny_data(counts: Sequence[int], seed: int = 0, plan: Plan | None = None) -> ImageSet:
    """Random pixels, brighter from class to class; labels in turn, so that classes are mixed."""
    shape, classes = (plan.image.shape, plan.classes) if plan else (GREY.shape, CLASSES)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    stream = Stream.of(seed, Purpose.DATA)
    labels = labels[stream.permutation(len(labels))]
    bright = (labels * 40).view(-1, 1, 1, 1)
    noise = (stream.uniforms(len(labels), *shape) * 150).to(torch.int64)
    return ImageSet((bright + noise).to(torch.uint8), labels, classes)


def split(data: ImageSet, sites: Sequence[Sequence[int]]) -> list[ImageSet]:
    return [data.subset(torch.tensor(index, dtype=torch.int64)) for index in sites]


def answers(plan: Plan, holdings: Sequence[Sequence[int]]) -> list[Contribution]:
    """One contribution per row of image counts; sites are named site-1, site-2, ..."""
    sets = [tiny_data(counts, seed, plan) for seed, counts in enumerate(holdings)]
    return [contribute(plan, data, f"site-{k + 1}") for k, data in enumerate(sets)]


def fixed_statistics(
    codes: torch.Tensor, classes: Sequence[int], totals: Sequence[int] | None = None
) -> Statistics:
    counts = torch.tensor(totals or [1] * len(classes), dtype=torch.int64)
    scales = torch.full(codes.shape[:2], 0.5) if codes.dtype == torch.int8 else None
    present = torch.tensor(classes, dtype=torch.int64)
    return Statistics(torch.arange(len(codes)), present, codes, scales, counts, counts.clone())


def ramp(*shape: int) -> torch.Tensor:
    """0, 1/8, 2/8, ... up to 2, and again: exact in every wire type but int8."""
    return (torch.arange(torch.Size(shape).numel()) % 17).float().div(8).reshape(shape)


def fixed_contribution(plan: Plan, site: str = "site-1", **changes: Any) -> Contribution:
    """Numbers that no network computed: the statistics of classes 0 and 2, and `local.images` images of each."""
    labels = torch.tensor([0, 2]).repeat_interleave(plan.local.images)
    images = (torch.arange(len(labels) * 64) % 251).to(torch.uint8).reshape(len(labels), 1, 8, 8)
    codes = ramp(plan.steps, 2, plan.sketch or WIDTH)
    codes = (
        (codes * 8).to(torch.int8) if plan.wire == "int8" else codes.to(getattr(torch, plan.wire))
    )
    fields: dict[str, Any] = {
        "site": site,
        "plan_digest": plan.digest,
        "statistics": fixed_statistics(codes, [0, 2], [3, 5]),
        "images": ImageSet(images, labels, plan.classes),
        "versions": VERSIONS,
    }
    return Contribution(**fields | changes)


def fixed_distilled(plan: Plan) -> DistilledSet:
    labels = torch.arange(len(plan.classes)).repeat_interleave(plan.ipc)
    images = (torch.arange(len(labels) * 64) % 251).to(torch.uint8).reshape(len(labels), 1, 8, 8)
    sites = {"site-1": [3, 0, 5], "site-2": [0, 4, 0]}
    return DistilledSet(ImageSet(images, labels, plan.classes), plan, sites, plan.method, VERSIONS)


def fixed_steps(plan: Plan) -> DistilledSteps:
    """Three steps of two images."""
    images = (torch.arange(6 * 64) % 251).to(torch.uint8).reshape(3, 2, 1, 8, 8)
    sites = {"site-1": [3, 0, 5], "site-2": [0, 4, 0]}
    return DistilledSteps(images, ramp(3, 2, 3), ramp(3) + 0.5, plan, sites, "dosfl", VERSIONS)


def fixed_model(plan: Plan, spec: NetworkSpec = NETWORK) -> DistilledModel:
    """Weights that no training moved."""
    network = build(spec, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(7, Purpose.NETWORK))
    return DistilledModel(
        float_weights(network), spec, plan, {"site-1": [3, 0, 5]}, "dense", VERSIONS
    )
