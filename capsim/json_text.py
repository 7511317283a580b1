"""Documents as JSON text."""

import json
from typing import Any


def to_json(document: dict[str, Any]) -> str:
    """JSON with NaN as null: what is not known is not a number."""
    return json.dumps(_without_nan(document), indent=2, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float) and value != value:
        return None
    return value
