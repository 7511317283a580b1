"""The verb ``app``."""

import os
import sys
from typing import Annotated

import typer


def app(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 8501,
    address: Annotated[str, typer.Option(help="Where to listen.")] = "localhost",
) -> None:
    """Open the web app, on this machine alone unless told otherwise."""
    from pathlib import Path

    import capsim
    from capsim.errors import ScenarioError

    root = Path(capsim.__file__).parents[1]
    if not (root / "app.py").is_file():
        raise ScenarioError.one("the web app is not installed with the package", hint="run it in a checkout of capsim")
    os.chdir(root)  # where the app's settings are
    arguments = ["--server.port", str(port), "--server.address", address]
    os.execv(sys.executable, [sys.executable, "-m", "capsim.pages", *arguments])
