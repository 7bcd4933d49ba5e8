"""The base class of all settings, and the messages of their validation errors."""

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_serializer
from pydantic_core import ErrorDetails

Positive = Annotated[int, Field(ge=1, le=10**6)]
LearningRate = Annotated[float, Field(gt=0, le=10**4)]

MOST_FAULTS = 20  # in one message

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


def validation_message(error: ValidationError) -> str:
    """Format a validation error like all other messages, one line per field.

    Each line names the field, the expected value and the value found. After `MOST_FAULTS` lines,
    the number of further faults follows.
    """
    faults = error.errors(include_url=False, include_context=True)
    lines = [_line(item) for item in faults[:MOST_FAULTS]]
    if len(faults) > MOST_FAULTS:
        lines.append(f"… and {len(faults) - MOST_FAULTS:,} more faults")
    return "\n".join(lines)


def _line(item: ErrorDetails) -> str:
    """Return the message about one field, from one entry of `ValidationError.errors()`."""
    field = ".".join(str(key) for key in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"`{field}` is not a setting: remove it, or check its spelling"

    message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if item.get("ctx", {}).get("pattern") == f"^{SITE_NAME}$":
        message = SITE_NAME_RULE

    if not field:
        return message
    if "; found " in message:  # about a part of the field, which the message names
        return f"`{field}`: {message}"
    return f"`{field}` {message}; found {item['input']!r:.80}"
