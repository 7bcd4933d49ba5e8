"""Find a schema of flows by name or file, and change its fields."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.data.flows.built_in import SCHEMAS
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.json_text import load_json
from collabdm.documents.plan_file import PLAN_FORMAT
from collabdm.documents.regular_file import SMALL, read_regular
from collabdm.errors import PlanError

ROW_BLOCK = 200  # rows in a block of time, if rows are distilled one by one


def schema_of(text: str) -> FlowSchema:
    """Find a schema by its name, in its JSON file, or in the file of a plan. Raises PlanError."""
    if text in SCHEMAS:
        return SCHEMAS[text]

    try:
        document = load_json(read_regular(Path(text), SMALL))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"`flows` should be one of {', '.join(SCHEMAS)}, or a schema's JSON file; "
            f"found {text!r} ({error})"
        ) from error

    in_plan = isinstance(document, dict) and document.get("format") == PLAN_FORMAT
    return parse_schema(text, document.get("flows") if in_plan else document)


def parse_schema(where: str, fields: Any) -> FlowSchema:
    """Parse a schema from decoded JSON. Raises PlanError, which names the file `where`."""
    try:
        return FlowSchema.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        raise PlanError(f"{where} should be a schema of flows; {first_fault(error)}") from error


def with_changes(
    schema: FlowSchema, changes: dict[str, Any], keep_leaking: bool = False
) -> FlowSchema:
    """Copy a schema, with some fields changed.

    Args:
        schema: The original.
        changes: The new values, by field. With `form` rows, `flows` is 1 and `block` is
            `ROW_BLOCK`, unless they are given.
        keep_leaking: Use the leaking columns too, and lower the rows per image to what then fits.

    Raises:
        PlanError: The changed schema is not valid.
    """
    if changes.get("form") == "rows" and not schema.as_rows:
        changes = {"flows": 1, "block": ROW_BLOCK} | changes
    try:
        changed = FlowSchema.model_validate(schema.model_dump() | changes)
    except ValidationError as error:
        raise PlanError(f"schema: {first_fault(error)}") from error

    return changed.with_leaking() if keep_leaking else changed


def first_fault(error: ValidationError) -> str:
    """Return the message about the first fault of a schema."""
    return validation_message(error).splitlines()[0]
