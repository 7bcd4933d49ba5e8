"""Small tables of flows and schemas for them."""

from pathlib import Path
from typing import Any

from collabdm.documents.flow_schema import Category, FlowSchema, Number
from collabdm.documents.plan import ImageSpec
from collabdm.documents.specs import NetworkSpec
from collabdm.matching.networks import build, seed_weights
from collabdm.scoring.trained_model import TrainedModel, state_tensors
from collabdm.seeds import Purpose, Stream

COLUMNS = (
    Number(name="dur", low=0, high=10, unit=0.1),
    Number(name="bytes", low=0, high=100, scale="linear"),
    Category(name="proto", values=("tcp", "udp")),
    Number(name="seq", low=0, high=1000, scale="linear"),
)


def tiny_schema(**changes: Any) -> FlowSchema:
    """Three features (seq is leaking), two rows an image of 8 x 8, classes ok and bad."""
    fields: dict[str, Any] = {
        "columns": COLUMNS,
        "leaking": ("seq",),
        "label": "label",
        "classes": ("ok", "bad"),
        "merge": (("scan", "bad"),),
        "flows": 2,
        "side": 8,
        "split": "none",
    }
    return FlowSchema(**fields | changes)


def row(i: int, label: str = "ok", **cells: object) -> dict[str, object]:
    """One row: dur, bytes, proto, seq, label."""
    return {"dur": 0.5, "bytes": i % 100, "proto": "tcp", "seq": i, "label": label} | cells


def write_csv(path: Path, rows: list[dict[str, object]], delimiter: str = ",") -> Path:
    """A CSV file of the rows."""
    lines = [
        delimiter.join(rows[0]),
        *(delimiter.join(str(value) for value in r.values()) for r in rows),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row_schema(**changes: Any) -> FlowSchema:
    """Four features in seven encoded values, of which two may be missing; classes ok and bad."""
    columns = (COLUMNS[0], COLUMNS[1].model_copy(update={"complete": True}), *COLUMNS[2:])
    fields = {"columns": columns, "form": "rows", "flows": 1}
    return tiny_schema(**fields | changes)


def untrained(schema: FlowSchema) -> TrainedModel:
    """An untrained network for tables of a schema, which predicts both classes."""
    channels, side, _ = schema.image_shape
    image = ImageSpec(channels=channels, side=side, mean=(0.5,) * channels, std=(0.25,) * channels)
    spec = NetworkSpec(name="MLP", width=16, depth=1)
    network = build(spec, image.shape, len(schema.classes))
    seed_weights(network, Stream.of(4, Purpose.NETWORK))
    provenance = {"flows": schema.model_dump(mode="json")}
    return TrainedModel(spec, image, schema.classes, state_tensors(network), provenance)


def mixed_rows(count: int) -> list[dict[str, object]]:
    """Rows with missing and unlisted values, values out of range, and both labels."""
    return [
        row(
            i,
            "bad" if i % 3 else "ok",
            dur="" if i % 5 == 0 else i % 13 / 2,
            bytes=i % 110,
            proto=("tcp", "udp", "gre", "")[i % 4],
        )
        for i in range(count)
    ]
