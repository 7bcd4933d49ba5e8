"""Parse JSON of foreign files strictly: no key twice in an object, and limited nesting.

A key that occurs twice has a different value in different readers (RFC 8259, section 4). Deep
nesting exhausts the stack of programs that handle the values recursively.
"""

import json
from typing import Any

MOST_LEVELS = 64  # of objects and lists within each other


def load_json(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: the text is not JSON, a key occurs twice, or the nesting is too deep.
    """
    try:
        value = json.loads(text, object_pairs_hook=_distinct_keys)
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    check_nesting(value)
    return value


def check_nesting(value: Any) -> None:
    """Check that lists and dictionaries are nested at most `MOST_LEVELS` deep.

    Raises:
        ValueError: they are nested more deeply.
    """
    level = [value]
    for _ in range(MOST_LEVELS):
        inner = [list(v.values()) if isinstance(v, dict) else v for v in level if _contains(v)]
        level = [item for items in inner for item in items]
    if any(map(_contains, level)):
        raise ValueError(_too_deep())


def _contains(value: object) -> bool:
    return isinstance(value, dict | list)


def _too_deep() -> str:
    return f"more than {MOST_LEVELS} levels of nesting"


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key occurs twice")
    return fields
