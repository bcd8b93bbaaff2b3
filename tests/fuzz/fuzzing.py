"""Drawn inputs: a few, the same every time, in the test suite; new ones for FUZZ_SECONDS in `make fuzz`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

# They share the time; a target is a call of `fuzz` in a test.
TARGETS = sum(path.read_text().count("\n    fuzz(") for path in Path(__file__).parent.glob("test_*.py"))
SECONDS = float(os.environ.get("FUZZ_SECONDS", 0)) / TARGETS
PER_ROUND = 200 if SECONDS else 25


def fuzz(check: Callable[..., None], *drawn: st.SearchStrategy[Any]) -> None:
    """Call `check` with drawn values: once round in the suite, round after round until the time is over in a fuzzing.

    A value that fails is made as small as it gets before it is shown.
    """
    options = settings(
        max_examples=PER_ROUND,
        deadline=None,
        derandomize=not SECONDS,  # what fails in the suite is the change's doing, not the draw's
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    end = time.monotonic() + SECONDS
    while True:
        options(given(*drawn)(check))()
        if time.monotonic() >= end:
            return


def one_line(action: Callable[[], Any], names: str, kind: type[ValueError] = ValueError) -> Any:
    """Return what an action gives, or None where it refuses: with an error of one line that names the input."""
    try:
        return action()
    except kind as error:
        message = str(error)
        assert message and "\n" not in message and len(message) < 2000, message
        assert names in message, message
        return None


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with a few faults: overwritten, cut out, doubled, inserted, cut off; near the start more often."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 6))):
        reach = max(1, draw(st.sampled_from([len(data), min(len(data), 200)])))
        place = draw(st.integers(0, reach - 1))
        fault = draw(st.sampled_from(["set", "extreme", "remove", "double", "insert", "cut"]))
        if fault == "set":
            data[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif fault == "extreme":
            value = draw(st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]))
            data[place : place + 4] = value
        elif fault == "remove":
            del data[place : place + draw(st.integers(1, 64))]
        elif fault == "double":
            end = place + draw(st.integers(1, 64))
            data[place:place] = data[place:end]
        elif fault == "insert":
            data[place:place] = draw(st.binary(max_size=16))
        else:
            del data[place:]
    return bytes(data)


# Values of a JSON or YAML file.
plain_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["..", "/etc/passwd", "a.png", "1e400", "\ud800", "off", "[", "é\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
