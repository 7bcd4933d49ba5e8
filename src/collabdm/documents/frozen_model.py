"""The base class of all settings, and the messages of their validation errors."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer
from pydantic_core import ErrorDetails

from collabdm.errors import did_you_mean

Positive = Annotated[int, Field(ge=1, le=10**6)]
LearningRate = Annotated[float, Field(gt=0, le=10**4)]

MOST_FAULTS = 20  # in one message

#: what a value should be, by pydantic's type of error
EXPECTED = {
    "bool_parsing": "should be true or false",
    "bool_type": "should be true or false",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_type": "should be a whole number",
    "model_type": "should be an object, in Python a dictionary",
    "string_type": "should be text",
}

SITE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
SITE_NAME_RULE = "should be 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"
SiteName = Annotated[str, Field(pattern=f"^{SITE_NAME}$")]


class FrozenModel(BaseModel):
    """Immutable settings. Unknown keys, NaN and infinity are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ExtendedModel(FrozenModel):
    """Settings with later fields, `extensions`, which their JSON contains only if they are set.

    Documents without them keep the digest that they had before the fields existed.
    """

    extensions: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_absent_extensions(
        self, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        fields = handler(self).items()
        return {k: v for k, v in fields if v is not None or k not in self.extensions}


def validation_message(error: ValidationError, known: Iterable[str] = ()) -> str:
    """Format a validation error like all other messages, one line per field.

    Each line names the field, the expected value and the value found; for an unknown field, the
    nearest of the names in `known`. After `MOST_FAULTS` lines, the number of further faults
    follows.
    """
    faults = error.errors(include_url=False, include_context=True)
    lines = [_line(item, known) for item in faults[:MOST_FAULTS]]
    if len(faults) > MOST_FAULTS:
        lines.append(f"… and {len(faults) - MOST_FAULTS:,} more faults")
    return "\n".join(lines)


def expectation(item: ErrorDetails) -> str:
    """Return what a value should be, from one entry of `ValidationError.errors()`."""
    message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return EXPECTED.get(item["type"], message)


def _line(item: ErrorDetails, known: Iterable[str]) -> str:
    """Return the message about one field, from one entry of `ValidationError.errors()`."""
    field = ".".join(str(key) for key in item["loc"])
    if item["type"] == "extra_forbidden":
        nearest = did_you_mean(field, known if len(item["loc"]) == 1 else ())
        nearest = nearest or ": remove it, or check its spelling"
        return f"`{field}` is not a setting{nearest}"

    message = expectation(item)
    if item.get("ctx", {}).get("pattern") == f"^{SITE_NAME}$":
        message = SITE_NAME_RULE

    if not field:
        return message
    if "; found " in message:  # about a part of the field, which the message names
        return f"`{field}`: {message}"
    return f"`{field}` {message}; found {item['input']!r:.80}"
