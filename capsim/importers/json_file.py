"""A JSON file that somebody else wrote."""

import json
from pathlib import Path
from typing import Any

from capsim.errors import ScenarioError


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises
    ------
    ScenarioError
        There is no such file, or it is not JSON.
    """
    if not path.is_file():
        raise ScenarioError.one("file not found", path=path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ScenarioError.one(f"not JSON: {error}", path=path) from error
