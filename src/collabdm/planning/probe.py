"""TODO planning.probe."""

import hashlib

import torch

from collabdm.documents.plan import Plan, Probe
from collabdm.errors import ProbeError
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_embedding, probe_values
from collabdm.matching.networks import Network
from collabdm.seeds import Purpose, Stream

PROBE_VALUES = 16


PROBE_TOLERANCE = 1e-3


def probe(plan: Plan) -> Probe:
    """The Plan's probe, computed on this machine in float32 on the CPU."""
    family = plan_embedding(plan, Compute(compiled=False))
    pixels = Stream.of(plan.seed, Purpose.PROBE).uniforms(1, *plan.image.shape)
    values = probe_values(pixels, family.at(0))
    chosen = values[:: max(1, len(values) // PROBE_VALUES)][:PROBE_VALUES]
    return Probe(
        weights=weights_digest(family.network(0)),
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
    if (
        len(expected) != len(found)
        or float((expected - found).abs().max()) > PROBE_TOLERANCE * scale
    ):
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
