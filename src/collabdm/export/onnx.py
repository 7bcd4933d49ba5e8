"""A trained model as an ONNX file that runs without collabdm.

    input    images    uint8 (n, channels, side, side), pixels 0 .. 255
    output   probabilities   float32 (n, classes)

Normalisation and softmax are part of the graph; class names, the normalisation and the provenance stand in the
file's metadata, as JSON.

Reference: the Open Neural Network Exchange, https://onnx.ai.
"""

import io
import json
import logging
import warnings
from importlib.util import find_spec

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from collabdm.errors import PlanError
from collabdm.matching.networks import Network
from collabdm.scoring.trained_model import TrainedModel


class Portable(nn.Module):
    """From pixels to probabilities: what the file holds."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Float32[Tensor, "n classes"]:
        """Probabilities of uint8 pixels."""
        return self.network((images.float() / 255 - self.mean) / self.std).softmax(1)


def check_onnx() -> None:
    """Refuse, before any work, where the packages that write the file are not installed. Raises PlanError."""
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise PlanError(
            f"ONNX needs {' and '.join(missing)}; found none here: pip install {' '.join(missing)}"
        )


def onnx_bytes(model: TrainedModel) -> bytes:
    """The file. Raises PlanError where the packages that write it are not installed."""
    check_onnx()
    import onnx

    module = Portable(model.network(), model.image.mean, model.image.std).eval()
    example = torch.zeros(2, *model.image.shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own imports
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes={"images": {0: torch.export.Dim("n", min=1)}},
            input_names=["images"],
            output_names=["probabilities"],
            verbose=False,
        )
    assert program is not None  # it is where no file is named
    proto = program.model_proto
    told = {
        "classes": model.classes,
        "mean": model.image.mean,
        "std": model.image.std,
        "network": model.spec.model_dump(mode="json"),
        "provenance": model.provenance,
    }
    onnx.helper.set_model_props(
        proto, {key: json.dumps(value, ensure_ascii=False) for key, value in told.items()}
    )
    onnx.checker.check_model(proto)
    buffer = io.BytesIO()
    onnx.save_model(proto, buffer)
    return buffer.getvalue()
