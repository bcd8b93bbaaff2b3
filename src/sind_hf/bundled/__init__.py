"""The checkpoint that comes with the package: small, and there without a download."""

from __future__ import annotations

from pathlib import Path


def bundled_checkpoint() -> str:
    """Return the folder of the checkpoint that comes with the package, for `SindModel.from_pretrained` and the like.

    How it was trained, what it can do and what it cannot is in its `README.md`.

    Example:
        >>> from sind_hf import SindModel, bundled_checkpoint
        >>> SindModel.from_pretrained(bundled_checkpoint()).config.score_range
        [1.0, 5.0]
    """
    return str(Path(__file__).parent)
