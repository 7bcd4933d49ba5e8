"""The detector file: rows of a table in their units, to probabilities, without collabdm."""

import json

import numpy as np
import pytest
import torch
from traffic import COLUMNS, row_schema, untrained

from collabdm.data.flows.rows import encode_categories, encode_numbers
from collabdm.errors import PlanError
from collabdm.export.onnx import TARGETS, onnx_bytes
from collabdm.export.row_detector import RowDetector
from collabdm.scoring.trained_model import TrainedModel

NUMBERS = [[0.5, 3.0], [float("nan"), 200.0], [-1.0, 0.0], [99.0, 50.0]]
CATEGORIES = [[0], [1], [-1], [-2]]


def inputs():
    return torch.tensor(NUMBERS, dtype=torch.float64), torch.tensor(CATEGORIES)


def encoded(schema):
    """The rows above as the reader of tables encodes them."""
    numbers, categories = np.array(NUMBERS), np.array(CATEGORIES, dtype=np.int32)
    duration, size, protocol = schema.features
    parts = [
        encode_numbers(duration, numbers[:, 0]),
        encode_numbers(size, numbers[:, 1]),
        encode_categories(protocol, categories[:, 0]),
    ]
    return torch.from_numpy(np.concatenate(parts, 1))


def test_the_detector_encodes_rows_as_the_reader_of_tables_does():
    schema = row_schema()
    model = untrained(schema)
    found = RowDetector(model.network(), model, schema).encode(*inputs())
    torch.testing.assert_close(found, encoded(schema), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("opset", TARGETS)
def test_the_runtime_computes_the_probabilities_of_the_model(opset):
    onnxruntime = pytest.importorskip("onnxruntime")
    schema = row_schema()
    model = untrained(schema)
    content = onnx_bytes(model, opset)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    numbers, categories = (tensor.numpy() for tensor in inputs())
    expected = model.probabilities(encoded(schema)[:, :, None, None]).numpy()
    for n in (1, 4):
        feed = {"numbers": numbers[:n], "categories": categories[:n]}
        (found,) = session.run(None, feed)
        np.testing.assert_allclose(found, expected[:n], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kept", [COLUMNS[:2], COLUMNS[2:3]])
def test_a_table_may_have_numbers_alone_or_categories_alone(kept):
    onnxruntime = pytest.importorskip("onnxruntime")
    schema = row_schema(columns=kept, leaking=())
    session = onnxruntime.InferenceSession(
        onnx_bytes(untrained(schema)), providers=["CPUExecutionProvider"]
    )
    counts = (2, 0) if len(kept) == 2 else (0, 1)
    feed = {"numbers": np.zeros((3, counts[0])), "categories": np.zeros((3, counts[1]), int)}
    (found,) = session.run(None, feed)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_the_metadata_names_the_columns_in_order_and_the_categories():
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(
        onnx_bytes(untrained(row_schema())), providers=["CPUExecutionProvider"]
    )
    metadata = session.get_modelmeta().custom_metadata_map
    described = json.loads(metadata["inputs"])
    assert described["numbers"] == ["dur", "bytes"]
    assert described["categories"] == {"proto": ["tcp", "udp"]}
    assert described["missing"] == list(row_schema().missing)
    assert json.loads(metadata["classes"]) == ["ok", "bad"]


def test_a_model_for_rows_without_a_schema_is_no_detector():
    model = untrained(row_schema())
    bare = TrainedModel(model.spec, model.image, model.classes, model.weights)
    with pytest.raises(PlanError, match="the model should contain a schema of flows"):
        onnx_bytes(bare)
