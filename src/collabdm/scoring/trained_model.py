"""A trained network as a document: weights, and all that turns a picture into probabilities.

    p_y(x) = softmax_y f((x - mean) / std)

A model is one safetensors file: the network's tensors by their names, and one header that names the
network, the images it was made for (with their normalisation), the classes, and where it comes from. It
is read without pickle and checked before use: the tensors should be those of the network, and finite. The
network that a method gives instead of a set (DENSE, FedAvg) is read as a model too.

Reference: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML
2017 (what such probabilities are worth).
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
from collabdm.images import Pixels
from collabdm.matching.compute import Compute
from collabdm.matching.networks import Network, build
from collabdm.matching.weights import trained_network
from collabdm.scoring.distilled_model_file import read_distilled_model
from collabdm.scoring.training import logits_of

MODEL_VERSION = 1


MODEL_LIMIT = 2**32


@dataclass(frozen=True)
class TrainedModel:
    """A network that was trained: `weights` are the tensors of its state by name, on the CPU.

    `provenance` says where it comes from (JSON values); nothing in it is needed to use the model.
    """

    spec: NetworkSpec
    image: ImageSpec
    classes: tuple[str, ...]
    weights: dict[str, Tensor]
    provenance: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def network(self) -> Network:
        """The network with these weights, in evaluation mode. Raises DocumentError where they are not its own."""
        try:
            network = build(self.spec, self.image.shape, len(self.classes))
        except PlanError as error:
            raise DocumentError(f"model: {error}") from error
        _check_weights(network.state_dict(), self.weights)
        network.load_state_dict(self.weights)
        return network.eval()

    def probabilities(self, images: Pixels) -> Float32[Tensor, "n classes"]:
        """p_y of every image; the images have the model's shape. Raises DataError where they have not."""
        found = tuple(images.shape[1:])
        if found != self.image.shape:
            raise DataError(f"images should be (channels, height, width) = {self.image.shape}; found {found}")
        if len(images) == 0:
            return torch.zeros(0, len(self.classes))
        return logits_of(self.network(), images, self.image.normalisation, Compute()).softmax(1)


def state_tensors(network: Network) -> dict[str, Tensor]:
    """A copy of the tensors of a network's state, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}


class ModelHeader(DocumentHeader):
    """Header of a model."""

    network: dict[str, Any]
    image: dict[str, Any]
    provenance: dict[str, Any]


def write_model(model: TrainedModel, path: Path | str) -> None:
    """Write a model as safetensors. Raises DocumentError where its weights are not those of its network."""
    model.network()
    header = ModelHeader(
        format="collabdm/model",
        version=MODEL_VERSION,
        classes=model.classes,
        versions=model.versions,
        network=model.spec.model_dump(mode="json"),
        image=model.image.model_dump(mode="json"),
        provenance=model.provenance,
    )
    atomic_write(Path(path), encode_document(model.weights, header))


def origin(made: DistilledSet | DistilledModel) -> dict[str, Any]:
    """What a model's provenance says of the outcome that it comes from; who held what is not part of it."""
    told: dict[str, Any] = {"plan": made.plan.digest, "method": made.method}
    return told | ({"flows": made.plan.flows.model_dump(mode="json")} if made.plan.flows else {})


def as_model(made: DistilledModel) -> TrainedModel:
    """A method's network as a model."""
    weights = state_tensors(trained_network(made))
    return TrainedModel(made.spec, made.plan.image, made.plan.classes, weights, origin(made), made.versions)


def read_model(path: Path | str) -> TrainedModel:
    """Read a model, or the network that a method gave. Raises DocumentError where it is neither."""
    where = str(path)
    if format_of(Path(path)) == "collabdm/distilled-model":
        return as_model(read_distilled_model(path))
    content = read_limited(Path(path), MODEL_LIMIT)
    header, weights = decode_document(content, where, ModelHeader, "collabdm/model", MODEL_VERSION)
    if len(header.classes) < 2 or len(set(header.classes)) != len(header.classes):
        raise DocumentError(f"{where}: classes should be at least two distinct names; found {header.classes}")
    try:
        spec, image = NetworkSpec.model_validate(header.network), ImageSpec.model_validate(header.image)
    except ValidationError as error:
        raise DocumentError(f"{where}: header: {validation_message(error)}") from error
    model = TrainedModel(spec, image, header.classes, weights, header.provenance, header.versions)
    try:
        model.network()
    except DocumentError as error:
        raise DocumentError(f"{where}: {error}") from error
    return model


def _check_weights(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Refuse tensors of other names, shapes or types than the network's, and NaN or infinity."""
    check_names("weights", found, expected)
    for name, own in expected.items():
        tensor = found[name]
        if tensor.shape != own.shape or tensor.dtype != own.dtype:
            raise DocumentError(
                f"`{name}` should be {own.dtype} of shape {tuple(own.shape)}, as the network's; "
                f"found {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise DocumentError(f"`{name}` should be finite; found NaN or infinity")
