"""Starts the web app, its first answer thought over already: no visitor waits for imports and tables to be read."""

import sys

from streamlit.web import cli

from capsim.capacity import answers
from capsim.charts import plan as _charts  # noqa: F401
from capsim.pages.parts import scenarios
from capsim.scenario import resolve

if __name__ == "__main__":
    answers(resolve(scenarios.path_of(scenarios.FIRST)))
    sys.argv = ["streamlit", "run", "app.py", *sys.argv[1:]]
    cli.main()
