"""Small pictures and data sets in files, made for the tests of loading."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image


def pixels(seed: int, channels: int = 3, side: int = 4) -> np.ndarray:
    shape = (side, side, channels) if channels == 3 else (side, side)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def draw(path: Path, array: np.ndarray) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, format="PNG")
    return path.read_bytes()


def image_folder(root: Path, **counts: int) -> Path:
    for y, (name, count) in enumerate(counts.items()):
        for i in range(count):
            draw(root / name / f"{i}.png", pixels(100 * y + i))
    return root


def parquet(path: Path, labels: list, names: list[str] | None = None, **columns: list) -> Path:
    encoded = [
        {"bytes": draw(path.parent / "x.png", pixels(i)), "path": None} for i in range(len(labels))
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(encoded, kind), "label": pa.array(labels), **columns})
    if names:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(table, path)
    return path


def planes(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.transpose(2, 0, 1).copy())
