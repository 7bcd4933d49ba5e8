"""TODO documents.frozen_model."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Positive = Annotated[int, Field(ge=1, le=10**6)]


LearningRate = Annotated[float, Field(gt=0, le=10**4)]


SITE_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


SiteName = Annotated[str, Field(pattern=f"^{SITE_NAME}$")]


class FrozenModel(BaseModel):
    """A frozen part of a Plan; unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def validation_message(error: ValidationError) -> str:
    """A validation error in the house's form, one line per field."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            lines.append(f"`{where}` is not a setting: remove it, or check its spelling")
            continue
        message = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if item.get("ctx", {}).get("pattern") == f"^{SITE_NAME}$":
            message = "should be 1 to 64 letters, digits, '.', '_' or '-', a letter or digit first"
        lines.append(f"`{where}` {message}; found {item['input']!r:.80}" if where else message)
    return "\n".join(lines)
