"""ICC profiles made from their definitions, so that no file of a vendor is needed."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

# Colorants of color spaces, adapted to D50: what red, green and blue (the columns) are in XYZ.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
DISPLAY_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])
D50 = (0.9642, 1.0, 0.8249)


def icc_profile(space: bytes, gamma: float, colorants: np.ndarray = DISPLAY_P3) -> bytes:
    """Make a profile of version 2: one gamma and, for RGB, the colorants."""

    def xyz(values: Any) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    tags = {b"wtpt": xyz(D50)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        tags |= {name + b"TRC": curve for name in (b"r", b"g", b"b")}
        tags |= {name + b"XYZ": xyz(column) for name, column in zip((b"r", b"g", b"b"), colorants.T, strict=True)}
    place, table, content = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, place + len(content), len(data))
        content += data
    header = struct.pack(">I4sI4s4s4s", place + len(content), bytes(4), 0x02100000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *(round(value * 65536) for value in D50))
    return header.ljust(128, b"\0") + table + content


P3 = icc_profile(b"RGB ", 2.2)
