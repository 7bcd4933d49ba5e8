"""Making a Plan: settings filled in, bytes and work foretold, and the probe that guards the seeds.

Bytes of a contribution that holds P classes, of width r and `c` bytes a number:

    steps (P (r c + 4 [int8]) + 8)  +  P images (channels side^2 (1 uint8 | 4 float32) + 8)  +  24 P  +  header

The probe is computed at step 0 from an image of uniforms: a digest of the network's weights (equal to
the bit on every machine) and the image's sketched embedding under the augmentation of class 0 (equal to
float tolerance). A site whose library computes something else would poison the round unseen; it refuses.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError

from collabdm.augment import OPERATIONS
from collabdm.compute import Compute
from collabdm.embedding import Embedding, Geometry, Seeds, multiplications, probe_values
from collabdm.errors import PlanError, ProbeError
from collabdm.flows import load_flows
from collabdm.flows.schema import FlowSchema
from collabdm.images import ImageSet, measure_normalisation
from collabdm.networks import Network, NetworkSpec, build
from collabdm.protocol import SITE_NAME, ImageSpec, Part, Plan, Probe
from collabdm.seeds import Purpose, Stream, participants
from collabdm.statistics import WIRE_BYTES

STEP_BYTES = 8  # the number of a step
HEADER_BYTES = 1536  # class names apart: names and places of tensors, site, digest, versions
PROBE_VALUES = 16
PROBE_TOLERANCE = 1e-3

SMALL_SIDE = 24  # images below it are small
SMALL_RATES = {"local": 0.2, "refinement": 1.0}  # measured on such images: docs/log.md, entries 2 and 8

Options = TypeVar("Options", bound=Part)


def make_plan(classes: tuple[str, ...], image: ImageSpec, **settings: Any) -> Plan:
    """A Plan for images of the given classes and shape; `settings` are fields of `Plan`.

    Left out: `augment` is every operation, without flip where the classes are digits; `pae` is 2 for
    images of even side from 16 on (the quarter of a smaller one shows too little); `local.images` is a
    site's share of ipc and one more. Raises PlanError, naming the field.
    """
    settings.setdefault("pae", 2 if image.side >= 16 and image.side % 2 == 0 else 1)
    settings.setdefault("augment", default_policy(classes))
    try:
        plan = Plan(classes=classes, image=image, **settings)
    except ValidationError as error:
        raise PlanError(describe(error)) from error
    if plan.local.images == 0 and plan.local.method != "none":
        share = min(plan.ipc, math.ceil(plan.ipc / plan.sites) + 1)
        plan = plan.model_copy(update={"local": plan.local.model_copy(update={"images": share})})
    return plan.model_copy(update={"probe": probe(plan)})


def plan_for(data: ImageSet, **settings: Any) -> Plan:
    """A Plan for data like `data` (a public reference set: its mean and std become public)."""
    channels, side, _ = data.shape
    constants = measure_normalisation(data)
    measured = ImageSpec(channels=channels, side=side, mean=constants.mean, std=constants.std)
    return make_plan(data.classes, settings.pop("image", measured), **settings)


def plan_for_flows(schema: FlowSchema, sample: str | None = None, **settings: Any) -> Plan:
    """A plan for tables of flows; a public sample gives mean and standard deviation of the pixels.

    Left out: `pae` is 1 and `augment` is nothing, since a place in an image of traffic has a meaning; `local.images`
    is ipc, so that a station which holds nearly all of a class can give all of its images.
    """
    plain: dict[str, Any] = {"pae": 1, "augment": (), "flows": schema}
    settings = plain | with_rates(settings, schema.side)
    local = settings.get("local") or {}
    if isinstance(local, dict) and not local.get("images") and local.get("method", "dm") != "none":
        settings["local"] = local | {"images": settings.get("ipc", Plan.model_fields["ipc"].default)}
    if sample is not None:
        return plan_for(load_flows(Path(sample), schema), **settings)
    return make_plan(schema.classes, ImageSpec(channels=1, side=schema.side, mean=(0.25,), std=(0.25,)), **settings)


def with_rates(settings: dict[str, Any], side: int) -> dict[str, Any]:
    """Settings with the learning rates that suit images of that side, where they say neither rate nor optimiser.

    The defaults of a Plan are for 32 x 32 pixels; small images leave the range of pixels with them.
    """
    if side >= SMALL_SIDE:
        return settings
    filled = dict(settings)
    for part, rate in SMALL_RATES.items():
        said = filled.get(part) or {}
        matching = (said.get("matching") or {}) if isinstance(said, dict) else None  # the Plan refuses what is none
        if isinstance(matching, dict) and not {"learning_rate", "optimiser"} & set(matching):
            filled[part] = said | {"matching": matching | {"learning_rate": rate}}
    return filled


def default_policy(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Every operation; a digit is not the same when flipped."""
    digits = all(name.strip().isdigit() for name in classes)
    return tuple(o for o in OPERATIONS if not (digits and o == "flip"))


def describe(error: ValidationError) -> str:
    """A validation error in the house's form, one line per field."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"`{where}` is not a setting: remove it, or check its spelling")
            continue
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if item.get("ctx", {}).get("pattern") == f"^{SITE_NAME}$":
            message = "should be 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"
        lines.append(f"`{where}` {message}; found {item['input']!r:.80}" if where else message)
    return "\n".join(lines)


def options_of(options: Mapping[str, Any] | None, model: type[Options]) -> Options:
    """A method's own settings, from a plan or from what a person said. Raises PlanError, naming the field."""
    try:
        return model.model_validate_json(json.dumps(options or {}, default=str), strict=True)
    except ValidationError as error:
        raise PlanError(
            "\n".join(line.replace("`", "`options.", 1) for line in describe(error).splitlines())
        ) from error


def plan_embedding(plan: Plan, compute: Compute, work: int = 0) -> Embedding:
    """The embedding that the Plan's seeds name; `work` images are to pass through it."""
    return Embedding(plan.network, geometry(plan), Seeds(plan.seed), compute, plan.sketch, work)


def geometry(plan: Plan) -> Geometry:
    """What the Plan's embeddings look at."""
    return Geometry(plan.image.shape, len(plan.classes), plan.image.normalisation, plan.augment)


def probe(plan: Plan) -> Probe:
    """The Plan's probe, computed on this machine in float32 on the CPU."""
    embedding = plan_embedding(plan, Compute(compiled=False)).at(0)
    pixels = Stream.of(plan.seed, Purpose.PROBE).uniforms(1, *plan.image.shape)
    values = probe_values(pixels, embedding)
    chosen = values[:: max(1, len(values) // PROBE_VALUES)][:PROBE_VALUES]
    return Probe(
        weights=weights_digest(embedding.network),
        embedding=tuple(float(f"{value:.6g}") for value in chosen.tolist()),
    )


def check_probe(plan: Plan) -> None:
    """Refuse to work where this machine does not compute what the Plan's author did. Raises ProbeError."""
    if plan.probe is None:
        raise ProbeError("the plan should carry a probe; found none: make it with `collabdm plan`")
    here = probe(plan)
    if here.weights != plan.probe.weights:
        raise ProbeError(
            f"the weights of step 0 should have digest {plan.probe.weights[:16]}…; this machine draws "
            f"{here.weights[:16]}…: install the plan author's version of collabdm"
        )
    expected, found = torch.tensor(plan.probe.embedding), torch.tensor(here.embedding)
    scale = float(expected.abs().max()) or 1.0
    if len(expected) != len(found) or float((expected - found).abs().max()) > PROBE_TOLERANCE * scale:
        raise ProbeError(
            "the embedding of the probe image should agree with the plan's to 1 in 1000; this machine "
            "computes other values: compare the versions of torch and collabdm with the plan's author"
        )


def weights_digest(network: Network) -> str:
    """SHA-256 of all weights as little-endian float32, in declared order."""
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().cpu().float().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Cost:
    """What a site will send and compute at most: if it holds every class, `images_per_class` of each."""

    statistics_bytes: int
    image_bytes: int
    file_bytes: int
    forward_images: int
    multiplications: float

    @property
    def bytes(self) -> int:
        """Bytes of the class means and of the pixels: what the paper counts."""
        return self.statistics_bytes + self.image_bytes


@lru_cache
def most_bytes(plan: Plan) -> int:
    """The most bytes that one site's file can have: that of a site that holds every class."""
    return cost(plan).file_bytes


def cost(plan: Plan, images_per_class: int = 1000) -> Cost:
    """Foretell one site's contribution. A backward pass counts as two forward ones."""
    classes, local = len(plan.classes), plan.local
    steps = most_steps(plan)
    real = classes * steps * min(plan.batch or images_per_class, images_per_class)
    if local.method == "dm":
        synthetic = local.images * plan.pae**2 * 3
        real += classes * local.steps * (min(local.batch, images_per_class) + synthetic)
    sent = classes * (0 if local.method == "none" else local.images)
    statistics, images = steps * (bytes_per_step(plan) - STEP_BYTES), sent * _bytes_per_image(plan)
    network = build(plan.network, plan.image.shape, classes)
    return Cost(
        statistics_bytes=statistics,
        image_bytes=images,
        file_bytes=statistics + images + STEP_BYTES * steps + 8 * (sent + 3 * classes) + _header_bytes(plan),
        forward_images=real,
        multiplications=real * multiplications(network, plan.image.shape),
    )


def bytes_per_step(plan: Plan) -> int:
    """Bytes of the means of every class, and of the number of the step."""
    mean = plan.width * WIRE_BYTES[plan.wire] + (4 if plan.wire == "int8" else 0)
    return len(plan.classes) * mean + STEP_BYTES


def most_steps(plan: Plan) -> int:
    """|A_k| at most: how many steps the site takes part in that takes part in most."""
    return steps_taken(plan)[-1] if plan.steps else 0


def steps_taken(plan: Plan) -> list[int]:
    """After each step, in how many some site has taken part: with `fraction` below 1, not in all."""
    if plan.fraction == 1 or plan.site_names is None:
        return list(range(1, plan.steps + 1))
    taken: Counter[str] = Counter()
    most = []
    for t in range(plan.steps):
        taken.update(participants(plan.seed, t, plan.site_names, plan.fraction))
        most.append(max(taken.values()))
    return most


def _bytes_per_image(plan: Plan) -> int:
    channels, height, width = plan.image.shape
    return channels * height * width * (1 if plan.images == "uint8" else 4)


def _header_bytes(plan: Plan) -> int:
    """The header with the class names, which stand there as JSON in JSON."""
    names = json.dumps(json.dumps(plan.classes, ensure_ascii=False), ensure_ascii=False)
    return len(names.encode()) + HEADER_BYTES


def network_of(settings: Any) -> NetworkSpec:
    """A network from its settings. Raises PlanError, naming what should change."""
    try:
        return NetworkSpec.model_validate(settings)
    except ValidationError as error:
        raise PlanError(f"`network`: {describe(error)}") from error


def network_settings(text: str) -> dict[str, Any]:
    """`ConvNet:width=64,depth=2` as settings of a NetworkSpec.

    >>> network_settings("ConvNet:width=64,norm=batch")
    {'name': 'ConvNet', 'width': 64, 'norm': 'batch'}
    """
    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {"name": name}
    for item in filter(None, rest.split(",")):
        key, equals, value = item.partition("=")
        if not equals:
            raise PlanError(f"`network` should be NAME or NAME:key=value,…; found {text!r}")
        settings[key] = int(value) if value.removeprefix("-").isdecimal() else value
    return settings


def networks_of(texts: Iterable[str], plain: NetworkSpec) -> tuple[NetworkSpec, ...]:
    """Networks to train. The bare name of the embedding network means just that one, with its width and depth."""
    return tuple(plain if text == plain.name else network_of(network_settings(text)) for text in texts)
