#!/usr/bin/env python3
"""Write manifests (data_json/<name>/all.json) of the datasets that a user has downloaded.

Example: python scripts/data_json_generator.py koniq10k --root ~/datasets --output data_json
Exit codes: 0 done; 1 some images or datasets could not be used, each is named; 2 wrong usage or nothing could be done.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from sind_hf.data.readers import READERS, BuildResult, DatasetNotFoundError, build

DATASETS = [name for name, reader in READERS.items() if reader.labels]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0] if __doc__ else None,
        epilog="example: %(prog)s koniq10k --root ~/datasets --output data_json",
    )
    parser.add_argument("name", choices=[*READERS, "all"], metavar="NAME", help=f"all, or {', '.join(READERS)}")
    parser.add_argument("--root", type=Path, required=True, help="the dataset's folder, or the folder that holds it")
    parser.add_argument(
        "--output", type=Path, default=Path("data_json"), help="a .json file, or the folder for <name>/all.json"
    )
    parser.add_argument("--verify", action="store_true", help="open and decode every image")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice among several scenes (spaq)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="option of the reader, e.g. score=quality"
    )
    parsed = parser.parse_args(arguments)
    if any("=" not in option for option in parsed.option):
        parser.error("--option takes KEY=VALUE")
    if parsed.name == "all" and parsed.output.suffix == ".json":
        parser.error("--output must be a folder when all datasets are built")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the manifests; returns the exit code."""
    parsed = parse(arguments)
    names = DATASETS if parsed.name == "all" else [parsed.name]
    written, failed, incomplete = 0, 0, 0
    for name in names:
        try:
            result = build_with_progress(name, parsed)
            output = parsed.output if parsed.output.suffix == ".json" else parsed.output / name / "all.json"
            output.parent.mkdir(parents=True, exist_ok=True)
            result.manifest.save(output)
        except (ValueError, OSError, ImportError) as error:
            print(f"{'skipped' if parsed.name == 'all' else 'error'}: {error}", file=sys.stderr)
            # Asked for all, a user means all that are there.
            failed += not (parsed.name == "all" and isinstance(error, DatasetNotFoundError))
            continue
        report(name, result, output)
        written += 1
        incomplete += not result.complete
    if not written:
        return 2
    return 1 if failed or incomplete else 0


def build_with_progress(name: str, parsed: argparse.Namespace) -> BuildResult:
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(name, total=None)
        return build(
            name,
            parsed.root,
            verify=parsed.verify,
            seed=parsed.seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            **dict(option.split("=", 1) for option in parsed.option),
        )


def report(name: str, result: BuildResult, output: Path) -> None:
    for path in result.missing:
        print(f"missing: {path}", file=sys.stderr)
    for path, reason in result.unreadable:
        print(f"unreadable: {path}: {reason}", file=sys.stderr)
    for note in result.notes:
        print(f"{name}: {note}")
    left_out = len(result.missing) + len(result.unreadable)
    print(f"{name}: {len(result.manifest)} images, {left_out} left out, image root {result.image_root} -> {output}")


if __name__ == "__main__":
    sys.exit(main())
