"""The page of all commands, made from the commands themselves.

python -m sind_hf.cli.reference > docs/reference/commands.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from sind_hf.cli import app

INTRODUCTION = """# Commands

`python -m sind_hf.cli.reference` makes this page from the commands, and a test keeps it up to date.
`sind-hf COMMAND --help` shows the same text.

Exit codes: **0** done; **1** some inputs could not be used, each is named, and everything else was done; **2** wrong
usage, or nothing could be done. An error is one line that says what is wrong, where, and what to do; with `--debug`
anywhere on the line it becomes a traceback. Results go to standard output, progress and errors to standard error.
"""


def commands_page() -> str:
    """Return the page as Markdown: a section per command, a row per argument and option."""
    root = typer.main.get_command(app)
    return INTRODUCTION + "".join(_section(path, command) for path, command in _walk("sind-hf", root))


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, each in getattr(command, "commands", {}).items():
        yield from _walk(f"{path} {name}", each)


def _section(path: str, command: Any) -> str:
    rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
    text = f"\n## `{path}`\n\n{_plain(command.help or '')}\n"
    if rows:
        text += "\n".join(["", "| option | default | meaning |", "| --- | --- | --- |", *rows, ""])
    return text


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    else:
        names = [*parameter.opts, *parameter.secondary_opts]
    if getattr(parameter, "is_flag", False):
        default = "on" if parameter.default else "off"
    elif parameter.required:
        default = "required"
    else:
        default = "none" if parameter.default in (None, [], ()) else f"`{parameter.default}`"
    shown = ", ".join(f"`{name}`" for name in names)
    return f"| {shown} | {default} | {_plain(parameter.help or '')} |".replace("  ", " ")


def _plain(text: str) -> str:
    """Drop rich's markup, and put examples into code."""
    text = re.sub(r"\[bold\](.*?)\[/bold\]", r"`\1`", text, flags=re.DOTALL)
    return text.replace("|", "\\|").strip()


if __name__ == "__main__":
    print(commands_page(), end="")
