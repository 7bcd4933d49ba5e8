"""Show a document as text, so that a site can read a document before sending it."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from collabdm.documents.codec import HEADER_KEY
from collabdm.documents.contribution import AddedNoise
from collabdm.documents.extra_tensors import declared_bytes
from collabdm.documents.json_text import load_json
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.documents.protection import Privacy
from collabdm.documents.regular_file import check_regular
from collabdm.errors import DocumentError
from collabdm.methods.registry import contribution_spec
from collabdm.planning.cost import cost, most_steps
from collabdm.privacy.release import count_images, is_protected, smallest_class_sent
from collabdm.privacy.wording import guarantee
from collabdm.rounds.estimate import estimated_seconds, rough_duration
from collabdm.rounds.saturation import saturation

Row = tuple[str, str]  # part, value

CLASSES, TOTALS = "statistics.classes", "statistics.totals"  # tensors of a contribution

DOCUMENTS = "a plan, a contribution or a distilled set"
MOST_EQUAL = 3  # equal values in a row that are listed one by one
DTYPES = {
    "I32": "int32",
    "F16": "float16",
    "F32": "float32",
    "U8": "uint8",
    "I8": "int8",
    "I64": "int64",
}


def describe_file(path: Path) -> tuple[str, list[Row]]:
    """Describe a document: its title, and its content as rows of (part, value).

    Raises:
        DocumentError: the file is not a document of this package.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise DocumentError(f"{path} should be a readable file; {error.strerror}") from error
    return _describe_plan(path) if first == b"{" else _describe_tensors(path)


def summary(plan: Plan) -> str:
    """Summarise a plan: its main settings, and how much a site sends and computes at most."""
    site_cost, seconds = cost(plan), estimated_seconds(plan)
    sketch = "none" if plan.sketch is None else str(plan.sketch)

    extra_bytes = declared_bytes(contribution_spec(plan).extra)
    extra = f", {extra_bytes:,} extra tensors of method {plan.method}" if extra_bytes else ""
    time = "trains"
    if seconds is not None:
        time = f"computes {rough_duration(seconds)} on two cores"

    privacy = f"\nprivacy of each image: {guarantee(plan.privacy)}" if plan.privacy else ""
    return (
        f"plan {plan.digest[:16]}…, seed {plan.seed}, {plan.sites} sites, T = {plan.steps}\n"
        f"sketch {sketch}, wire {plan.wire}, ipc {plan.ipc}, pae {plan.pae}\n"
        f"a site sends at most {site_cost.file_bytes + extra_bytes:,} bytes "
        f"({site_cost.statistics_bytes:,} statistics, {site_cost.image_bytes:,} images{extra}) "
        f"and {time}\n{_class_sent(plan)}{privacy}"
    )


def _class_sent(plan: Plan) -> str:
    """State how many images a site needs of a class to send it."""
    if is_protected(plan):
        return "a site sends every class that it has: masks or noise protect it"
    least = smallest_class_sent(plan, most_steps(plan))
    if least is None:
        batch = count_images(plan.batch or 0)
        return f"no site sends a class: a mean of {batch} is withheld by default"
    return f"a site sends a class if it has at least {least:,} images of it"


def _describe_plan(path: Path) -> tuple[str, list[Row]]:
    plan = read_plan(path)
    rows = [("digest", plan.digest)]

    for name, value in plan.model_dump(mode="json").items():
        if isinstance(value, dict) and value:
            rows += [(f"{name}.{key}", _value_text(item)) for key, item in value.items()]
        else:
            rows.append((name, _value_text(value)))
    rows += _privacy_rows(plan)
    return f"{path}: plan, {path.stat().st_size:,} bytes", rows


def _describe_tensors(path: Path) -> tuple[str, list[Row]]:
    try:
        header, tensor_rows = _read_tensors(path)
        header_rows = _header_rows(header)
    except KeyError as error:
        raise DocumentError(
            f"{path} should be {DOCUMENTS}; found a safetensors file of another kind"
        ) from error
    except (OSError, AttributeError, TypeError, ValueError, SafetensorError) as error:
        raise DocumentError(
            f"{path} should be {DOCUMENTS}; found something else, or a part ({error})"
        ) from error

    kind = str(header.get("format", "")).removeprefix("collabdm/")
    rows = header_rows + tensor_rows + _noise_rows(header.get("noise"))
    if kind == "distilled":
        distilled = read_distilled(path)
        rows.append(("plan digest", distilled.plan.digest))
        if (share := saturation(distilled)) is not None:
            rows.append(("pixels at the ends of their range", f"{share:.0%}"))
        rows += _privacy_rows(distilled.plan)
    return f"{path}: {kind}, {path.stat().st_size:,} bytes", rows


def _noise_rows(noise: object) -> list[Row]:
    """Describe the noise in the header of a contribution; no rows without a valid one."""
    try:
        added = AddedNoise.model_validate(noise)
        budget = Privacy(epsilon=added.epsilon, delta=added.delta, clip=added.clip)
    except ValidationError:
        return []
    return [("privacy of each image", guarantee(budget))]


def _privacy_rows(plan: Plan) -> list[Row]:
    """Describe the privacy budget of a plan; a plan without one gives no rows."""
    return [("privacy of each image", guarantee(plan.privacy))] if plan.privacy else []


def _header_rows(header: dict[str, Any]) -> list[Row]:
    """Describe a header without its format and its plan; `sites` with the names of the classes."""
    rows = []
    for key, value in header.items():
        if key == "sites":
            rows.append((key, _counts_by_site(value, list(header["classes"]))))
        elif key not in ("format", "plan"):
            rows.append((key, _value_text(value)))
    return rows


def _read_tensors(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Read a safetensors document: its header, and the type, shape and bytes of each tensor."""
    rows: list[Row] = []
    with safe_open(path, framework="pt") as file:
        header = dict(load_json((file.metadata() or {})[HEADER_KEY]))
        for name in sorted(file.keys()):
            stored, tensor = file.get_slice(name), file.get_tensor(name)
            shape = " x ".join(map(str, stored.get_shape())) or "scalar"
            dtype = DTYPES.get(stored.get_dtype(), stored.get_dtype())
            rows.append((name, f"{dtype} {shape}, {tensor.nbytes:,} bytes"))

        if {CLASSES, TOTALS} <= set(file.keys()):
            names, totals = header["classes"], file.get_tensor(TOTALS).tolist()
            by_number = dict(enumerate(names))
            present = [str(by_number[y]) for y in file.get_tensor(CLASSES).tolist()]
            rows.append(("numbers of images", _counts_text(present, totals)))
    return header, rows


def _counts_by_site(sites: dict[str, list[int]], names: list[str]) -> str:
    """Write the images of each class at each site; classes that a site lacks are left out."""
    parts = []
    for site, counts in sites.items():
        present = [(name, n) for name, n in zip(names, counts, strict=True) if n]
        text = _counts_text([name for name, _ in present], [n for _, n in present])
        parts.append(f"{site} ({text or 'no images'})")
    return "; ".join(parts)


def _counts_text(names: list[str], counts: list[int]) -> str:
    """Write the number of images of each class.

    >>> _counts_text(["cat", "dog"], [120, 1])
    'cat: 120 images, dog: 1 image'
    """
    pairs = zip(names, counts, strict=True)
    return ", ".join(f"{name}: {count_images(count)}" for name, count in pairs)


def _value_text(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_value_text(item)}" for key, item in value.items())
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "\n".join(map(_value_text, value))
    if isinstance(value, list) and len(value) > MOST_EQUAL and len(set(value)) == 1:
        return f"{value[0]}, {len(value):,} times"
    if isinstance(value, list):
        return ", ".join(str(item) or "''" for item in value) or "none"
    if value == "":
        return "''"
    return "none" if value is None else str(value)
