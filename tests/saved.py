"""Writes the plan that the app's first screen shows: ``make saved``."""

import sys
from pathlib import Path

from capsim.capacity import plan
from capsim.json_text import to_json
from capsim.pages.parts.results import SAVED
from capsim.pages.parts.scenarios import FIRST, SHIPPED
from capsim.scenario import resolve


def main() -> None:
    document, _ = plan(resolve(SHIPPED / f"{FIRST}.yaml"), lambda number, run: print(number, file=sys.stderr))
    Path(SAVED / f"{FIRST}.plan.json").write_text(to_json(document))


if __name__ == "__main__":
    main()
