"""What is in a document, for people: a site sees what it sends before it sends it."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from collabdm.errors import DocumentError
from collabdm.files import HEADER_KEY, read_distilled, read_plan

Row = tuple[str, str]

MULTIPLICATIONS_PER_SECOND = 3e10  # two cores, float32, not compiled
DTYPES = {"F16": "float16", "F32": "float32", "U8": "uint8", "I8": "int8", "I64": "int64"}


def describe_file(path: Path) -> tuple[str, list[Row]]:
    """A title and rows of (part, value). Raises DocumentError where the file is none of the documents."""
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise DocumentError(f"{path} should be a readable file; {error.strerror}") from error
    return _describe_plan(path) if first == b"{" else _describe_tensors(path)


def duration(multiplications: float) -> str:
    """A rough time on two cores.

    >>> duration(3e12)
    '2 min'
    """
    seconds = multiplications / MULTIPLICATIONS_PER_SECOND
    return "a few seconds" if seconds < 10 else f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _describe_plan(path: Path) -> tuple[str, list[Row]]:
    plan = read_plan(path)
    rows = [("digest", plan.digest)]
    for name, value in plan.model_dump(mode="json").items():
        inner = value.items() if isinstance(value, dict) else ()
        rows += [(f"{name}.{key}", str(item)) for key, item in inner] or [(name, str(value))]
    return f"{path}: plan, {path.stat().st_size:,} bytes", rows


def _describe_tensors(path: Path) -> tuple[str, list[Row]]:
    rows: list[Row] = []
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER_KEY])
            names = sorted(file.keys())
            for name in names:
                part = file.get_slice(name)
                tensor = file.get_tensor(name)
                shape = " x ".join(map(str, part.get_shape()))
                kind = DTYPES.get(part.get_dtype(), part.get_dtype())
                rows.append((name, f"{kind} {shape or 'scalar'}, {tensor.nbytes:,} bytes"))
                if name in ("statistics.classes", "statistics.totals"):
                    rows.append((f"{name} says", ", ".join(map(str, tensor.tolist()))))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise DocumentError(
            f"{path} should be a plan, a contribution or a distilled set; found something else ({error})"
        ) from error
    kind = str(header.get("format", "")).removeprefix("collabdm/")
    shown = {k: v for k, v in header.items() if k not in ("format", "plan")}
    rows = [(key, _short(value)) for key, value in shown.items()] + rows
    if kind == "distilled":
        rows.append(("plan digest", read_distilled(path).plan.digest))
    return f"{path}: {kind}, {path.stat().st_size:,} bytes", rows


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_short(v)}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
