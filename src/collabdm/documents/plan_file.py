"""TODO documents.plan_file."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import check_format, distinct_keys, read_limited
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.plan import PLAN_VERSION, Plan
from collabdm.errors import DocumentError

PLAN_LIMIT = 4 * 2**20


def write_plan(plan: Plan, path: Path | str) -> None:
    """Write a Plan as indented JSON, its digest beside its fields."""
    atomic_write(Path(path), plan_bytes(plan))


def plan_bytes(plan: Plan) -> bytes:
    """The bytes of a Plan: the same on disk and on any wire."""
    document = {"format": "collabdm/plan", "version": PLAN_VERSION, "digest": plan.digest}
    document |= plan.model_dump(mode="json")
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def read_plan(path: Path | str) -> Plan:
    """Read a Plan. Raises DocumentError where it is not one, or was changed after it was made."""
    return parse_plan(read_limited(Path(path), PLAN_LIMIT), str(path))


def parse_plan(content: bytes, where: str = "plan") -> Plan:
    """A Plan from its bytes. Raises DocumentError."""
    try:
        document = json.loads(content.decode(), object_pairs_hook=distinct_keys)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{where} should be a plan, JSON; found text that is not ({error})") from error
    if not isinstance(document, dict):
        raise DocumentError(f"{where} should be a plan, a JSON object; found {type(document).__name__}")
    check_format(where, document, "collabdm/plan", PLAN_VERSION)
    digest = document.pop("digest", None)
    del document["format"], document["version"]
    plan = plan_within(where, document)
    if digest != plan.digest:
        raise DocumentError(
            f"{where}: digest should be {plan.digest[:16]}…, that of its content; found {str(digest)[:16]}…: "
            "the plan was changed after it was made; ask its author for the original"
        )
    return plan


def plan_within(where: str, document: dict[str, Any]) -> Plan:
    """A Plan that stands in another document. Raises DocumentError."""
    try:
        return Plan.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise DocumentError(f"{where}: {validation_message(error)}") from error
