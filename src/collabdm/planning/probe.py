"""Compute and check the probe of a Plan, which every machine must reproduce to take part.

The author of the plan computes, for step 0,

    weights      SHA-256 of the weights of psi_{a_0}, equal bit for bit on every machine
    embedding    some values of P_0 psi_{a_0}(augment_{0,0}(x)), equal within a tolerance

for an image x of uniform random pixels, where psi_{a_0} is the network of the step, augment_{0,0}
its augmentation for class 0, and P_0 its random projection (the sketch). A machine whose libraries
compute different values would spoil the round without anyone noticing; `check_probe` raises an
error on such a machine.
"""

import hashlib

import torch

from collabdm.documents.plan import Plan, Probe
from collabdm.errors import PlanError, ProbeError
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_embedding, probe_values
from collabdm.matching.networks import Network
from collabdm.planning.limits import check_limits
from collabdm.seeds import Purpose, Stream

PROBE_VALUES = 16

PROBE_TOLERANCE = 1e-3  # relative to the largest value


def probe(plan: Plan) -> Probe:
    """Compute the probe of a plan on this machine, in float32 on the CPU.

    Raises PlanError if the plan exceeds the limits of memory and work, or gives no finite values.
    """
    check_limits(plan)
    family = plan_embedding(plan, Compute(compiled=False))
    pixels = Stream.of(plan.seed, Purpose.PROBE).uniforms(1, *plan.image.shape)
    values = probe_values(pixels, family.at(0))

    if not bool(torch.isfinite(values).all()):
        raise PlanError(
            "the embedding of the probe image should be finite; found NaN or infinity: choose a "
            "network with a norm, and another mean and standard deviation of the images"
        )

    chosen = values[:: max(1, len(values) // PROBE_VALUES)][:PROBE_VALUES]
    return Probe(
        weights=weights_digest(family.network(0)),
        embedding=tuple(float(f"{value:.6g}") for value in chosen.tolist()),
    )


def check_probe(plan: Plan) -> None:
    """Check that this machine computes the same values as the author of the plan.

    Raises ProbeError if it does not, or if the plan has no probe; PlanError as for `probe`.
    """
    if plan.probe is None:
        raise ProbeError(
            "the plan should contain a probe; found none: make the plan with `collabdm plan`"
        )

    here = probe(plan)
    if here.weights != plan.probe.weights:
        raise ProbeError(
            f"the weights of step 0 should have digest {plan.probe.weights[:16]}…; this machine "
            f"draws {here.weights[:16]}…: install the plan author's version of collabdm"
        )

    expected, computed = torch.tensor(plan.probe.embedding), torch.tensor(here.embedding)
    scale = float(expected.abs().max()) or 1.0
    same_length = len(expected) == len(computed)
    if not same_length or float((expected - computed).abs().max()) > PROBE_TOLERANCE * scale:
        raise ProbeError(
            "the embedding of the probe image should agree with the plan's to 1 in 1000; this "
            "machine computes other values: compare the versions of torch and collabdm with those "
            "of the plan's author"
        )


def weights_digest(network: Network) -> str:
    """Compute the SHA-256 of all weights as little-endian float32, in the order of the network."""
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().cpu().float().numpy().astype("<f4").tobytes())
    return digest.hexdigest()
