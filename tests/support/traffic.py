"""Small tables of flows and schemas for them."""

from pathlib import Path
from typing import Any

from collabdm.documents.flow_schema import Category, FlowSchema, Number

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
