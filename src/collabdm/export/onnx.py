"""Write a trained model as an ONNX file that runs without collabdm.

    input    images          uint8 (n, channels, side, side), pixels 0 .. 255
    output   probabilities   float32 (n, classes)

A model for rows of a table has the values of its columns as inputs instead (`row_detector`); the
metadata then lists the columns and the categories, under `inputs`.

Normalisation and softmax are part of the graph. The file's metadata contains the class names, the
normalisation and the provenance, as JSON. A file with a newer set of operators (opset) needs a
newer runtime, so the oldest that PyTorch exports is the default.

Reference: the Open Neural Network Exchange, https://onnx.ai.
"""

import io
import json
import logging
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from collabdm.errors import PlanError
from collabdm.export.flow_classifier import own_schema
from collabdm.export.row_detector import RowDetector, description, example
from collabdm.matching.networks import Network
from collabdm.scoring.trained_model import TrainedModel

REQUIRED = ("onnx", "onnxscript")

OPSET = 18  # the oldest that PyTorch's exporter supports


@dataclass(frozen=True)
class Target:
    """What an opset needs.

    Attributes:
        runtime: the oldest ONNX Runtime in which exported models were run, out of 1.15 to 1.22.
        file_version: the version of the file format (IR), which old runtimes refuse if it is newer.
    """

    runtime: str
    file_version: int


TARGETS = {
    18: Target("1.15", 8),
    20: Target("1.17", 9),
    21: Target("1.18", 10),
    22: Target("1.21", 10),
}


class PixelClassifier(nn.Module):
    """The network to export: it normalises pixels and computes class probabilities.

    Args:
        network: A trained network.
        mean: The mean of each channel, for pixels in 0 .. 1.
        std: The standard deviation of each channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Float32[Tensor, "n classes"]:
        """Compute the probabilities of the classes from uint8 pixels."""
        return self.network((images.float() / 255 - self.mean) / self.std).softmax(1)


def check_onnx() -> None:
    """Check that the packages for ONNX are installed. Raises PlanError if not."""
    missing = [name for name in REQUIRED if find_spec(name) is None]
    if missing:
        raise PlanError(
            f"ONNX needs {' and '.join(missing)}; found none here: pip install {' '.join(missing)}"
        )


def check_opset(opset: int) -> None:
    """Check that models can be exported with an opset. Raises PlanError if not."""
    if opset not in TARGETS:
        raise PlanError(f"`opset` should be one of {', '.join(map(str, TARGETS))}; found {opset}")


def runs_in(opset: int) -> str:
    """Return the runtimes of exported models, in words."""
    return f"ONNX Runtime {TARGETS[opset].runtime} and newer"


def onnx_bytes(model: TrainedModel, opset: int = OPSET) -> bytes:
    """Convert a model to an ONNX file in memory.

    Raises PlanError if a package is missing, or `opset` is not one of `TARGETS`.
    """
    check_opset(opset)
    check_onnx()
    import onnx

    proto = _graph(model, opset)
    proto.ir_version = TARGETS[opset].file_version
    metadata = {
        "classes": model.classes,
        "mean": model.image.mean,
        "std": model.image.std,
        "network": model.spec.model_dump(mode="json"),
        "provenance": model.provenance,
    }
    if model.image.side == 1:
        metadata["inputs"] = description(own_schema(model))
    texts = {key: json.dumps(value, ensure_ascii=False) for key, value in metadata.items()}
    onnx.helper.set_model_props(proto, texts)
    onnx.checker.check_model(proto)

    buffer = io.BytesIO()
    onnx.save_model(proto, buffer)
    return buffer.getvalue()


def _module_and_inputs(model: TrainedModel) -> tuple[nn.Module, dict[str, Tensor]]:
    """Make the module to export, and inputs of it for two images or rows, by name."""
    if model.image.side > 1:
        pixels = PixelClassifier(model.network(), model.image.mean, model.image.std)
        return pixels, {"images": torch.zeros(2, *model.image.shape, dtype=torch.uint8)}

    schema = own_schema(model)
    numbers, categories = example(schema)
    rows = RowDetector(model.network(), model, schema)
    return rows, {"numbers": numbers, "categories": categories}


def _graph(model: TrainedModel, opset: int) -> Any:
    module, inputs = _module_and_inputs(model)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's imports warn
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes={name: {0: torch.export.Dim("n", min=1)} for name in inputs},
            input_names=list(inputs),
            output_names=["probabilities"],
            verbose=False,
        )

    assert program is not None  # None only if a file name is given
    return program.model_proto
