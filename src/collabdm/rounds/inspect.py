"""What is in a document, for people: a site sees what it sends before it sends it."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from collabdm.documents.codec import HEADER_KEY
from collabdm.documents.extra_tensors import declared_bytes
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.errors import DocumentError
from collabdm.methods.registry import contribution_spec
from collabdm.planning.cost import cost

Row = tuple[str, str]


MULTIPLICATIONS_PER_SECOND = 3e10  # two cores, float32, not compiled


DOCUMENTS = "a plan, a contribution or a distilled set"


DTYPES = {"F16": "float16", "F32": "float32", "U8": "uint8", "I8": "int8", "I64": "int64"}


def describe_file(path: Path) -> tuple[str, list[Row]]:
    """A title and rows of (part, value). Raises DocumentError where the file is none of the documents."""
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise DocumentError(f"{path} should be a readable file; {error.strerror}") from error
    return _describe_plan(path) if first == b"{" else _describe_tensors(path)


def summary(plan: Plan) -> str:
    """What a plan asks of a site."""
    spent = cost(plan)
    parts = declared_bytes(contribution_spec(plan).extra)
    sketch = "none" if plan.sketch is None else str(plan.sketch)
    return (
        f"plan {plan.digest[:16]}…, seed {plan.seed}, {plan.sites} sites, T = {plan.steps}\n"
        f"sketch {sketch}, wire {plan.wire}, ipc {plan.ipc}, pae {plan.pae}\n"
        f"a site sends at most {spent.file_bytes + parts:,} bytes "
        f"({spent.statistics_bytes:,} statistics, {spent.image_bytes:,} images"
        f"{f', {parts:,} parts of method {plan.method}' if parts else ''}) "
        f"and {f'computes {duration(spent.multiplications)} on two cores' if plan.options is None else 'trains'}"
    )


def duration(multiplications: float) -> str:
    """A rough time on two cores.

    >>> duration(3e12), duration(3e15)
    ('about 2 min', 'about 28 h')
    """
    seconds = multiplications / MULTIPLICATIONS_PER_SECOND
    for unit, most, size in (("s", 90, 1), ("min", 90 * 60, 60)):
        if seconds < most:
            return f"about {seconds / size:.0f} {unit}" if seconds >= 10 else "a few seconds"
    return f"about {seconds / 3600:.0f} h"


def _describe_plan(path: Path) -> tuple[str, list[Row]]:
    plan = read_plan(path)
    rows = [("digest", plan.digest)]
    for name, value in plan.model_dump(mode="json").items():
        inner = value.items() if isinstance(value, dict) else ()
        rows += [(f"{name}.{key}", _short(item)) for key, item in inner] or [(name, _short(value))]
    return f"{path}: plan, {path.stat().st_size:,} bytes", rows


def _describe_tensors(path: Path) -> tuple[str, list[Row]]:
    rows: list[Row] = []
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(json.loads((file.metadata() or {})[HEADER_KEY]))
            names = sorted(file.keys())
            for name in names:
                part = file.get_slice(name)
                tensor = file.get_tensor(name)
                shape = " x ".join(map(str, part.get_shape()))
                kind = DTYPES.get(part.get_dtype(), part.get_dtype())
                rows.append((name, f"{kind} {shape or 'scalar'}, {tensor.nbytes:,} bytes"))
                if name in ("statistics.classes", "statistics.totals"):
                    rows.append((f"{name} says", ", ".join(map(str, tensor.tolist()))))
    except KeyError as error:
        raise DocumentError(f"{path} should be {DOCUMENTS}; found a safetensors file of another kind") from error
    except (OSError, TypeError, ValueError, SafetensorError) as error:
        raise DocumentError(f"{path} should be {DOCUMENTS}; found something else, or a part ({error})") from error
    kind = str(header.get("format", "")).removeprefix("collabdm/")
    shown = {k: v for k, v in header.items() if k not in ("format", "plan")}
    rows = [(key, _short(value)) for key, value in shown.items()] + rows
    if kind == "distilled":
        rows.append(("plan digest", read_distilled(path).plan.digest))
    return f"{path}: {kind}, {path.stat().st_size:,} bytes", rows


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_short(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
