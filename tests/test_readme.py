"""The README's commands print what the README says."""

import subprocess

import pytest
import readme


@pytest.mark.parametrize(("command", "said"), readme.examples(), ids=[command for command, _ in readme.examples()])
def test_readme_command_prints_what_the_readme_says(tmp_path, command, said):
    if (trace := readme.lacks(command)) is not None:
        pytest.skip(f"{trace} is not beside the checkout")
    assert readme.printed(command, tmp_path) == said


def test_the_two_commands_are_targets_of_the_makefile():
    for target, does in (("run", "capsim plan scenarios/chat-llama70b-h100.yaml"), ("test", "pytest")):
        dry = subprocess.run(
            ["make", "-n", target], cwd=readme.ROOT, env=readme.BY_HAND, capture_output=True, text=True, check=True
        )
        assert does in dry.stdout
        assert f"\nmake {target}\n" in readme.README.read_text()
