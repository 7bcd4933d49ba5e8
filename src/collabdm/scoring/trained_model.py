"""Read, write and use a model: a trained network, with everything needed to classify images.

    p_y(x) = softmax_y f((x - mean) / std)

p_y(x) is the probability that image x, with pixels in 0 .. 1, belongs to class y, and f computes
the logits of the network. A model is one safetensors file: the tensors of the network by name, and
a header with the network, its image format and normalisation, the classes, and the provenance. It
is read without pickle and checked before use: its tensors must be those of the network, and finite.
The network that a method returns instead of a set (DENSE, FedAvg) can also be read as a model.

Reference: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
ICML 2017 (how far such probabilities can be trusted).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from pydantic import ValidationError
from torch import Tensor

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import (
    DocumentHeader,
    decode_document,
    encode_document,
    format_of,
    read_limited,
)
from collabdm.documents.extra_tensors import check_names
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.outcomes import DistilledModel, DistilledSet
from collabdm.documents.plan import ImageSpec
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.images import Pixels, listed
from collabdm.matching.compute import Compute
from collabdm.matching.networks import Network, build
from collabdm.matching.weights import trained_network
from collabdm.scoring.distilled_model_file import DISTILLED_MODEL_FORMAT, read_distilled_model
from collabdm.scoring.training import logits_of

MODEL_FORMAT = "collabdm/model"
MODEL_VERSION = 1
MODEL_LIMIT = 2**32  # the most bytes of a file


class ModelHeader(DocumentHeader):
    """The header of a model."""

    network: dict[str, Any]
    image: dict[str, Any]
    provenance: dict[str, Any]


@dataclass(frozen=True)
class TrainedModel:
    """A trained network.

    Attributes:
        spec: the network.
        image: the format of its images.
        classes: the names of its classes.
        weights: the tensors of its state by name, on the CPU.
        provenance: its origin, as JSON values; the model can be used without it.
        versions: the software versions used.
    """

    spec: NetworkSpec
    image: ImageSpec
    classes: tuple[str, ...]
    weights: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Describe the model in one line."""
        size = " x ".join(map(str, self.image.shape))
        numbers = sum(tensor.numel() for tensor in self.weights.values())
        return (
            f"TrainedModel({self.spec.name}, {numbers:,} weights, for {size}, "
            f"{listed(self.classes)})"
        )

    def network(self) -> Network:
        """Build the network with these weights, in evaluation mode.

        Raises:
            DocumentError: the weights do not fit the network, or are not finite.
        """
        try:
            network = build(self.spec, self.image.shape, len(self.classes))
        except PlanError as error:
            raise DocumentError(f"model: {error}") from error

        _check_weights(self.weights, network.state_dict())
        network.load_state_dict(self.weights)
        return network.eval()

    def probabilities(self, images: Pixels) -> Float32[Tensor, "n classes"]:
        """Compute the class probabilities p_y of every image.

        Raises:
            DataError: the shape of the images differs from that of the model.
        """
        shape = tuple(images.shape[1:])
        if shape != self.image.shape:
            raise DataError(
                f"images should be (channels, height, width) = {self.image.shape}; found {shape}"
            )
        if len(images) == 0:
            return torch.zeros(0, len(self.classes))
        return logits_of(self.network(), images, self.image.normalisation, Compute()).softmax(1)


def state_tensors(network: Network) -> dict[str, Tensor]:
    """Copy all tensors of a network's state to the CPU, by name."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


def origin(outcome: DistilledSet | DistilledModel) -> dict[str, Any]:
    """Return the provenance of a model made from an outcome, without the sites' counts."""
    plan = outcome.plan
    fields: dict[str, Any] = {"plan": plan.digest, "method": outcome.method}
    return fields | ({"flows": plan.flows.model_dump(mode="json")} if plan.flows else {})


def as_model(outcome: DistilledModel) -> TrainedModel:
    """Convert the network that a method returned to a model."""
    weights = state_tensors(trained_network(outcome))
    plan = outcome.plan
    return TrainedModel(
        outcome.spec, plan.image, plan.classes, weights, origin(outcome), outcome.versions
    )


def write_model(model: TrainedModel, path: Path | str) -> None:
    """Write a model.

    Raises:
        DocumentError: its weights do not fit its network, or are not finite.
    """
    model.network()
    header = ModelHeader(
        format=MODEL_FORMAT,
        version=MODEL_VERSION,
        classes=model.classes,
        versions=model.versions,
        network=model.spec.model_dump(mode="json"),
        image=model.image.model_dump(mode="json"),
        provenance=model.provenance,
    )
    atomic_write(Path(path), encode_document(model.weights, header))


def read_model(path: Path | str) -> TrainedModel:
    """Read a model, or the network that a method returned.

    Raises:
        DocumentError: the file is neither, or its weights do not fit its network.
    """
    where = str(path)
    if format_of(Path(path)) == DISTILLED_MODEL_FORMAT:
        return as_model(read_distilled_model(path))

    content = read_limited(Path(path), MODEL_LIMIT)
    header, weights = decode_document(content, where, ModelHeader, MODEL_FORMAT, MODEL_VERSION)
    classes = header.classes
    if len(classes) < 2 or len(set(classes)) != len(classes):
        raise DocumentError(
            f"{where}: classes should be at least two distinct names; found {classes}"
        )

    try:
        spec = NetworkSpec.model_validate(header.network)
        image = ImageSpec.model_validate(header.image)
    except ValidationError as error:
        raise DocumentError(f"{where}: header: {validation_message(error)}") from error

    model = TrainedModel(spec, image, classes, weights, header.provenance, header.versions)
    try:
        model.network()
    except DocumentError as error:
        raise DocumentError(f"{where}: {error}") from error
    return model


def _check_weights(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Check that weights have the expected names, shapes and types, and are finite."""
    check_names("weights", weights, expected)

    for name, own in expected.items():
        tensor = weights[name]
        if tensor.shape != own.shape or tensor.dtype != own.dtype:
            raise DocumentError(
                f"`{name}` should be {own.dtype} of shape {tuple(own.shape)}, as the network's; "
                f"found {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise DocumentError(f"`{name}` should be finite; found NaN or infinity")
