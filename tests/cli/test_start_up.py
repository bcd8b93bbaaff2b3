"""Commands wait for none of the libraries that they do not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "pandas", "PIL", "numpy", "accelerate", "huggingface_hub")
PROGRAM = f"""
import sys
from sind_hf.cli import main
sys.argv[0] = "sind-hf"
try:
    main()
except SystemExit as end:
    print("code", end.code)
print("imported", *(name for name in {HEAVY} if name in sys.modules))
"""


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "experiment"),
        (["--version"], 0, "sind-hf"),
        (["score", "--help"], 0, "--min-score"),
        (["data", "build", "--help"], 0, "koniq10k"),
        (["scor"], 2, "Did you mean 'score'"),
        (["score", "a.png", "--modle", "m"], 2, "No such option: --modle"),
        (["score", "a.png", "--resume", "true"], 2, "true: a flag such as --resume takes no value"),
        (["score", "a.png", "--move-bad", "bad"], 2, "--copy-good and --move-bad need --min-score or --top"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_wrong_usage_import_nothing_heavy(arguments: list[str], code: int, words: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True)
    assert words in done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == [f"code {code}", "imported"], done.stderr


def test_flags_are_shown_without_a_type() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, "score", "--help"], capture_output=True, text=True)
    assert "--resume" in done.stdout and "<bool>" not in done.stdout


def test_score_of_a_file_imports_no_datasets_and_ends_without_a_search_for_garbage(image_files: list[str]) -> None:
    program = f"""
import atexit, gc, sys
atexit.register(lambda: print("frozen", gc.get_freeze_count() > 100_000))  # the last thing before Python ends
{PROGRAM.replace("pandas", "pandas', 'pyarrow")}
"""
    done = subprocess.run([sys.executable, "-c", program, "score", image_files[0]], capture_output=True, text=True)
    imported, frozen = done.stdout.splitlines()[-2:]
    assert {"datasets", "pandas", "pyarrow"}.isdisjoint(imported.split()), imported
    assert frozen == "frozen True", done.stderr
