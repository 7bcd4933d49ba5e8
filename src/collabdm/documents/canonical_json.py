"""TODO documents.canonical_json."""

import json
from decimal import Decimal
from typing import Any


def canonical_json(value: Any) -> str:
    """JSON in the canonical form of RFC 8785 (sorted keys, no spaces, ECMAScript numbers).

    >>> canonical_json({"b": 1.0, "a": [0.1, 1e-7]})
    '{"a":[0.1,1e-7],"b":1}'
    """
    if isinstance(value, dict):
        items = (
            f"{canonical_json(k)}:{canonical_json(v)}"
            for k, v in sorted(value.items(), key=lambda item: item[0].encode("utf-16-be"))
        )
        return "{" + ",".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(canonical_json, value)) + "]"
    if isinstance(value, float):
        return _ecmascript_number(value)
    return json.dumps(value, ensure_ascii=False)


def _ecmascript_number(value: float) -> str:
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        text = format(Decimal(repr(value)), "f")
        return text.removesuffix(".0")
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa}e{int(exponent):+d}"
