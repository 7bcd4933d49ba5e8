"""Canonical JSON: equal documents have the same text, and so the same digest.

Keys are sorted, there are no spaces, and numbers are written as ECMAScript writes them.

Reference: A. Rundgren, B. Jordan, S. Erdtman, "JSON Canonicalization Scheme (JCS)", RFC 8785, 2020.
"""

from typing import Any

import rfc8785

from collabdm.documents.json_text import check_nesting
from collabdm.errors import PlanError


def canonical_json(value: Any) -> str:
    """Write a JSON value in the canonical form of RFC 8785.

    Raises PlanError for a value that has no such form: NaN, infinity, text that is not Unicode, or
    a whole number of 2^53 or more, which some JSON readers would round; and for deep nesting.

    >>> canonical_json({"b": 1.0, "a": [0.1, 1e-7]})
    '{"a":[0.1,1e-7],"b":1}'
    """
    try:
        check_nesting(value)
    except ValueError as error:
        raise PlanError(f"settings should be nested less deeply; found {error}") from error

    try:
        return rfc8785.dumps(value).decode()
    except rfc8785.CanonicalizationError as error:
        raise PlanError(
            "settings should be finite numbers, whole numbers of at most 2^53 - 1, and Unicode "
            f"text; {error}: change it"
        ) from error
