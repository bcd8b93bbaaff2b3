"""The command line: one module per command, which calls the rooms below.

A command imports torch, transformers and most of the package when it runs, so that help and wrong usage do not wait
for them. Exit codes: 0 done; 1 some inputs could not be used, each is named, and everything else is done; 2 wrong
usage, or nothing could be done. Errors are one line; `--debug` shows where they come from.
"""

from __future__ import annotations

import atexit
import gc
import signal
import sys
from typing import Any

import typer

from sind_hf import __version__
from sind_hf.cli import terminal
from sind_hf.cli.app import web_app
from sind_hf.cli.convert import convert, export
from sind_hf.cli.data import data
from sind_hf.cli.evaluate import evaluate
from sind_hf.cli.experiment import experiment
from sind_hf.cli.push import push
from sind_hf.cli.score import score
from sind_hf.cli.train import demo, train

app = typer.Typer(
    name="sind-hf",
    help="SIND: how good does an image look? No reference image needed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sind-hf {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error. Works anywhere on the line."),
) -> None:
    """Options that work with every command."""


app.command()(score)
# Unknown options reach these two commands, which say how to write them as keys of the configuration.
app.command(context_settings={"ignore_unknown_options": True})(train)
app.command()(evaluate)
app.command(context_settings={"ignore_unknown_options": True})(experiment)
app.command()(convert)
app.command()(push)
app.command()(export)
app.command()(demo)
app.command("app")(web_app)
app.add_typer(data, name="data")


def _hide_types_of_flags(command: Any) -> None:
    """Keep the help from showing a type such as `<bool>` beside flags, which take no value."""
    for parameter in command.get_params(command.context_class(command)):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for each in getattr(command, "commands", {}).values():
        _hide_types_of_flags(each)


def _complete(arguments: list[str]) -> list[str]:
    """Add the value `on` to a `--fast-decode` that stands alone, since the parser knows no optional values."""
    values = ("auto", "on", "off")
    following = [*arguments[1:], ""]
    return [
        f"{word}=on" if word == "--fast-decode" and value not in values else word
        for word, value in zip(arguments, following, strict=False)
    ]


def main() -> None:
    """Run the command line; turn expected errors into one line and exit code 2."""
    atexit.register(gc.freeze)  # otherwise Python searches torch's modules for garbage for seconds before it ends
    command = typer.main.get_command(app)
    _hide_types_of_flags(command)
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = command.main(_complete(arguments), prog_name="sind-hf", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort) as error:
        cause = error if isinstance(error, KeyboardInterrupt) else error.__cause__  # the parser wraps it
        terminal.fail(str(cause or "") or "interrupted", code=128 + getattr(cause, "signal", signal.SIGINT))
    except Exception as error:
        if debug:
            terminal.show_traceback(error)
            sys.exit(2)
        # The parser describes wrong usage itself, and says nothing where it has shown the help already.
        describe = getattr(error, "format_message", None)
        if describe is None:
            terminal.fail(error)
        if message := describe():
            terminal.fail(f"{message.rstrip('.')}; see --help")
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
