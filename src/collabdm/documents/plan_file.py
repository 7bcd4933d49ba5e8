"""Read and write a Plan as JSON, with a digest that reveals later changes.

Reference: docs/format.md, "Plan".
"""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import check_format, read_limited
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.json_text import load_json
from collabdm.documents.plan import PLAN_VERSION, Plan
from collabdm.errors import DocumentError

PLAN_FORMAT = "collabdm/plan"
PLAN_LIMIT = 4 * 2**20  # bytes


def write_plan(plan: Plan, path: Path | str) -> None:
    """Write a Plan as indented JSON. Raises OutputError."""
    atomic_write(Path(path), plan_bytes(plan))


def plan_bytes(plan: Plan) -> bytes:
    """Encode a Plan as bytes, which are the same on disk and on the network."""
    fields = {"format": PLAN_FORMAT, "version": PLAN_VERSION, "digest": plan.digest}
    fields |= plan.model_dump(mode="json")
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


def read_plan(path: Path | str) -> Plan:
    """Read a Plan. Raises DocumentError if the file is not a Plan, or was edited."""
    return parse_plan(read_limited(Path(path), PLAN_LIMIT), str(path))


def parse_plan(content: bytes, where: str = "plan") -> Plan:
    """Parse the bytes of a Plan. Raises DocumentError, which names the file `where`."""
    try:
        fields = load_json(content.decode())
    except ValueError as error:
        raise DocumentError(
            f"{where} should be a plan, JSON; found text that is not ({error})"
        ) from error
    if not isinstance(fields, dict):
        raise DocumentError(
            f"{where} should be a plan, a JSON object; found {type(fields).__name__}"
        )

    check_format(where, fields, PLAN_FORMAT, PLAN_VERSION)
    digest = fields.pop("digest", None)
    del fields["format"], fields["version"]

    plan = embedded_plan(where, fields)
    if digest != plan.digest:
        raise DocumentError(
            f"{where}: digest should be {plan.digest[:16]}…, that of its content; "
            f"found {str(digest)[:16]}…: "
            "the plan was changed after it was made; ask its author for the original"
        )

    return plan


def embedded_plan(where: str, fields: dict[str, Any]) -> Plan:
    """Parse a Plan from its fields, as the header of an outcome contains them.

    Raises DocumentError, which names the document `where`.
    """
    try:
        return Plan.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        raise DocumentError(f"{where}: {validation_message(error)}") from error
