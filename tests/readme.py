"""The README's console examples: run as a new user would. `make readme` writes down what they print now."""

import os
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TRACES = ROOT.parent / "shared" / "traces"
BLOCK = re.compile(r"^```console\n\$ (.+?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TRACE = re.compile(r"workload\.trace=(\S+)")
# A make started by a make announces its directories.
BY_HAND = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}


def examples() -> list[tuple[str, str]]:
    """Each command with what the README says that it prints."""
    return BLOCK.findall(README.read_text())


def lacks(command: str) -> str | None:
    """The trace that the command wants and nobody has."""
    trace = TRACE.search(command)
    return trace.group(1) if trace and not (TRACES / trace.group(1)).exists() else None


def printed(command: str, folder: Path) -> str:
    """What the command prints in the checkout, or in a folder like it with the traces beside the scenarios."""
    place = ROOT
    if TRACE.search(command):
        place = folder
        for path in [*ROOT.iterdir(), *TRACES.glob("*.csv")]:
            (folder / path.name).symlink_to(path)
    options = {"shell": True, "cwd": place, "env": BY_HAND, "text": True, "timeout": 600}
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options).stdout


def main() -> None:
    text = README.read_text()
    for command, said in examples():
        with tempfile.TemporaryDirectory() as folder:
            if lacks(command) is None:
                text = text.replace(f"$ {command}\n{said}```", f"$ {command}\n{printed(command, Path(folder))}```")
    README.write_text(text)


if __name__ == "__main__":
    main()
