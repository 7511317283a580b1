"""The README's commands print what the README says."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TRACES = ROOT.parent / "shared" / "traces"
BLOCK = re.compile(r"^```console\n\$ (.+?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EXAMPLES = BLOCK.findall((ROOT / "README.md").read_text())
# A make started by a make announces its directories.
BY_HAND = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
TRACE = re.compile(r"workload\.trace=(\S+)")


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like the checkout, with the traces beside the scenarios."""
    for path in ROOT.iterdir():
        (tmp_path / path.name).symlink_to(path)
    for path in TRACES.glob("*.csv"):
        (tmp_path / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize(("command", "printed"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_readme_command_prints_what_the_readme_says(checkout, command, printed):
    trace = TRACE.search(command)
    if trace and not (checkout / trace.group(1)).exists():
        pytest.skip(f"{trace.group(1)} is not beside the checkout")
    done = subprocess.run(
        command,
        shell=True,
        cwd=checkout,
        env=BY_HAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.stdout == printed


def test_the_two_commands_are_targets_of_the_makefile():
    for target, does in (("run", "capsim plan scenarios/chat-llama70b-h100.yaml"), ("test", "pytest")):
        plan = subprocess.run(["make", "-n", target], cwd=ROOT, env=BY_HAND, capture_output=True, text=True, check=True)
        assert does in plan.stdout
        assert f"\nmake {target}\n" in (ROOT / "README.md").read_text()
