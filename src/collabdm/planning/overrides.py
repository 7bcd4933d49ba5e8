"""`--set FIELD=VALUE`: set any field of a model, with the type that the model declares.

A value is a TOML or JSON scalar or list; text without quotes is a string, and `none` is None:

    steps=50    refinement.matching.schedule=cosine    sketch=none    augment=[crop, scale]
"""

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial, reduce
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from collabdm.documents.frozen_model import expectation
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.planning.settings import DATA_FIELDS, Settings, collect, merge_settings, nested


@dataclass(frozen=True)
class Fields:
    """The fields that can be set.

    Attributes:
        types: the type of every field, by its dotted name.
        unchecked: dotted names of dictionaries; their entries are checked later.
        fixed: fields that cannot be set, each with the reason.
        prefix: a prefix that users may write before every name.
    """

    types: Mapping[str, Any]
    unchecked: tuple[str, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""


def plan_fields() -> Fields:
    """Return the fields of a Plan that a user can set."""
    reason = "it follows from `--data`, or from `--classes` and `--image-size`"
    return Fields(
        types=field_types(Plan),
        unchecked=("options",),
        fixed=dict.fromkeys(DATA_FIELDS, reason),
        prefix="plan.",
    )


def field_types(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Map the dotted name of each field to its type; a nested model is replaced by its fields."""
    types: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        inner = _model_in(info.annotation)
        if inner is None:
            types[prefix + name] = Annotated[info.annotation, *info.metadata, name]
        else:
            types |= field_types(inner, f"{prefix}{name}.")
    return types


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model class in a type `Model` or `Model | None`; None for other types."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    for part in parts:
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def read_overrides(texts: Sequence[str], fields: Fields) -> Settings:
    """Parse several `FIELD=VALUE` texts; if two set the same field, the later one applies.

    Args:
        texts: the values of `--set`.
        fields: the fields that can be set.

    Returns:
        Nested settings, with values of the fields' types.

    Raises:
        PlanError: Fields are unknown or values have the wrong type; the message names them all, and
            suggests a known field for each unknown one.
    """
    readings = (partial(_read_override, text, fields) for text in texts)
    return reduce(merge_settings, collect(*readings), {})


def _read_override(text: str, fields: Fields) -> Settings:
    name, equals, value = text.partition("=")
    name, value = name.strip().removeprefix(fields.prefix), value.strip()
    if not equals or not name:
        raise PlanError(f"`--set` should be FIELD=VALUE, such as ipc=5; found {text!r}")

    for fixed, reason in fields.fixed.items():
        if f"{name}.".startswith(f"{fixed}."):
            raise PlanError(f"`{name}` cannot be set; found {value!r}: {reason}")

    if any(name.startswith(f"{table}.") for table in fields.unchecked):
        return nested(name, next(_readings(value)))

    if name not in fields.types:
        raise PlanError(_unknown(name, fields))
    return nested(name, _typed(name, value, fields.types[name]))


def _typed(name: str, text: str, annotation: Any) -> Any:
    """Convert a text to the type of a field, as a JSON value; the first valid reading wins."""
    adapter = TypeAdapter(annotation)
    messages = []

    for value in _readings(text):
        try:
            return adapter.dump_python(adapter.validate_python(value), mode="json")
        except ValidationError as error:
            messages.append(expectation(error.errors()[0]))

    raise PlanError(f"`{name}` {messages[0]}; found {text!r}")


def _readings(text: str) -> Iterator[Any]:
    """Yield every value that a text can stand for: None, TOML, JSON, a list of words, the text."""
    if text == "none":
        yield None

    with suppress(ValueError, RecursionError):
        document = tomllib.loads(f"value = {text}")
        if set(document) == {"value"}:
            yield document["value"]

    with suppress(ValueError, RecursionError):
        yield json.loads(text)

    if text.startswith("[") and text.endswith("]"):
        yield [word.strip() for word in text[1:-1].split(",") if word.strip()]
    yield text


def _unknown(name: str, fields: Fields) -> str:
    """Write the message for an unknown field; it suggests the field with the nearest name."""
    inner = [known for known in fields.types if known.startswith(f"{name}.")]
    if inner:
        return f"`{name}` should be set field by field, such as {inner[0]}; found a value for all"

    matches: dict[str, list[str]] = {}
    for known in fields.types:
        matches.setdefault(known, []).append(known)
        matches.setdefault(known.rpartition(".")[2], []).append(known)
    nearest = difflib.get_close_matches(name, matches, 1)
    if not nearest:
        return f"`{name}` is not a setting: check its spelling"
    names = " or ".join(dict.fromkeys(matches[nearest[0]]))
    return f"`{name}` is not a setting: did you mean {names}?"
