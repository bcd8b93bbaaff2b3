"""Seconds from the start of a process to its end: help, imports, and the score of one image.

    python scripts/benchmarks/start_up.py [--rounds 5]

Prints a Markdown table. Every program that scores has to import torch and transformers' model class.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rounds import machine, time_in_turn

IMAGE = Path(__file__).parents[2] / "docs/images/coffee.jpg"
COMMANDS = {
    "`sind-hf --help`": ["-m", "sind_hf.cli", "--help"],
    "`import sind_hf`": ["-c", "import sind_hf"],
    "`from transformers import PreTrainedModel`": ["-c", "from transformers import PreTrainedModel"],
    "`sind-hf score coffee.jpg`": ["-m", "sind_hf.cli", "score", str(IMAGE)],
}


def run(arguments: list[str], _: int) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    actions: dict[str, Callable[[int], object]] = {name: partial(run, words) for name, words in COMMANDS.items()}
    found = time_in_turn(actions, rounds, warm_up=0)
    print(f"Whole processes ({machine()}; medians of {rounds} rounds)\n")
    print("| process | seconds |")
    print("| --- | ---: |")
    for name in COMMANDS:
        print(f"| {name} | {found.median(name):.2f} |")


if __name__ == "__main__":
    main()
