"""Every `sind-hf` command in the documentation can be given as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from sind_hf.cli import app

ROOT = Path(__file__).parents[2]
PAGES = ["docs/datasets.md", "docs/prepared_data.md", "data_json/README.md"]


def documented_commands(page: str) -> list[list[str]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("sind-hf ")]
    # [--option x] may be left out or given: both must work, so brackets go and their content stays
    return [[word.strip("[]") for word in words[1:]] for words in commands]


@pytest.mark.parametrize("page", PAGES)
def test_arguments_and_options_exist(page: str) -> None:
    commands = documented_commands(page)
    assert commands
    for words in commands:
        command = typer.main.get_command(app)
        arguments = list(words)
        while hasattr(command, "commands"):
            command = command.commands[arguments.pop(0)]
        command.make_context(" ".join(words[:2]), arguments)  # raises where it would be refused
