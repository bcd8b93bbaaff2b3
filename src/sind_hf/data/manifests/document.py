"""Reading and writing the JSON file of a manifest, which may come from an untrusted source."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sind_hf.data.manifests.validation import ManifestError
from sind_hf.files import shown, write_text

#: The largest dataset of the field (AVA, 255,000 images) takes about 80 MiB in the published, indented form.
MAX_BYTES = 128 * 2**20
#: Real entries are longer on average. A file of shorter ones would only fill the memory.
_LEAST_BYTES_PER_ENTRY = 64

#: Values of one JSON document; each takes up to a hundred bytes of memory, and as little as three bytes of text.
MOST_VALUES = 8_000_000

_SPACE = " \t\r\n"
_BETWEEN = re.compile(r"[ \t\r\n,:]*")


@dataclass
class ManifestDocument:
    """A manifest file after parsing and before any check of its content.

    Attributes:
        header: All top-level values except `files`.
        records: The values of `files`.
        text: The text that was parsed.
    """

    header: dict[str, object]
    records: list[object]
    text: str

    def line_of(self, index: int) -> int:
        """Return the line on which record `index` starts, from 1."""
        decode = json.JSONDecoder().raw_decode

        def skip(position: int) -> int:
            match = _BETWEEN.match(self.text, position)
            return match.end() if match else position

        position = self.text.index("{") + 1
        while True:
            key, position = decode(self.text, skip(position))
            if key == "files":
                break
            _, position = decode(self.text, skip(position))
        position = self.text.index("[", position) + 1
        for _ in range(index):
            _, position = decode(self.text, skip(position))
        return self.text.count("\n", 0, skip(position)) + 1


def read_document(path: Path, max_bytes: int = MAX_BYTES) -> ManifestDocument:
    """Read and parse a manifest file.

    Raises:
        ManifestError: If the file is missing, larger than `max_bytes`, not UTF-8 or not a JSON object with a list
            `files`.
    """
    name = shown(str(path), 300)[1:-1]
    try:
        if not path.is_file():
            what = (
                "this is not a file; name one JSON file" if path.exists() else "there is no such file; check the path"
            )
            raise ManifestError(f"{name}: {what}")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ManifestError):
            raise
        raise ManifestError(f"{name}: cannot be read ({shown(str(error))[1:-1]}); check the file") from error
    if len(data) > max_bytes:
        what = f"the file is larger than {max_bytes:,} bytes; if it is a manifest, raise max_bytes of Manifest.load"
        raise ManifestError(f"{name}: {what}")
    if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ManifestError(f"{name}: the file starts with a byte order mark; save it as UTF-8 without one")
    try:
        return _parse(data.decode("utf-8"), max(1000, max_bytes // _LEAST_BYTES_PER_ENTRY))
    except UnicodeDecodeError as error:
        raise ManifestError(f"{name}: byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        what = (
            f"line {error.lineno}, column {error.colno}: {error.msg}; a manifest is a JSON object with a list 'files'"
        )
        raise ManifestError(f"{name}: {what}") from error
    except RecursionError as error:
        raise ManifestError(f"{name}: values are nested too deeply; a manifest has three levels") from error
    except ManifestError as error:
        raise ManifestError(f"{name}: {error}") from error
    except ValueError as error:  # an integer with more digits than Python converts
        raise ManifestError(f"{name}: {shown(str(error))[1:-1]}; write scores and ids as ordinary numbers") from error


def _parse(text: str, max_entries: int) -> ManifestDocument:
    """Parse the text of a manifest. Duplicate keys, NaN and Infinity are errors, although `json` accepts them."""
    _require_few_values(text)
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    try:
        header, end = decoder.raw_decode(text, len(text) - len(text.lstrip(_SPACE)))
    except json.JSONDecodeError as error:
        if error.pos < len(text):
            raise
        raise json.JSONDecodeError("found the end of the file; the object is not complete", text, error.pos) from error
    if rest := text[end:].lstrip(_SPACE):
        raise json.JSONDecodeError("there is text after the end of the object", text, len(text) - len(rest))
    if not isinstance(header, dict) or "files" not in header:
        what = "there is no key 'files'" if isinstance(header, dict) else "this is not a JSON object"
        raise ManifestError(f"{what}; a manifest is a JSON object with a list 'files' of its entries")
    records = header.pop("files")
    if not isinstance(records, list):
        raise ManifestError("'files' is not a list; it must be a list of entries with image and score")
    if len(records) > max_entries:
        raise ManifestError(f"there are more than {max_entries:,} entries; raise max_bytes of Manifest.load for more")
    return ManifestDocument(header, records, text)


def parse_json(text: str) -> Any:
    """Parse JSON that may come from anywhere.

    Raises:
        ValueError: If the text is not JSON, is nested too deeply or holds more than `MOST_VALUES` values.
    """
    _require_few_values(text)
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("values are nested too deeply") from error


def _require_few_values(text: str) -> None:
    """Refuse JSON text that would fill the memory once it is parsed."""
    if (count := sum(map(text.count, ",[{"))) > MOST_VALUES:
        raise ManifestError(f"it may hold {count:,} values, more than {MOST_VALUES:,}; split the file")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ManifestError(f"the key {shown(twice)} appears twice in one object; keep one")
    return values


def _no_constant(name: str) -> object:
    raise ManifestError(f"{name} is not a JSON number; leave out entries without a score")


def write_document(path: Path, header: Mapping[str, object], records: Sequence[Mapping[str, object]]) -> None:
    """Write a manifest, completely or not at all, with one entry per line.

    Raises:
        ManifestError: If the file cannot be written.
    """
    lines = ["{"]
    lines += [f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in header.items()]
    lines.append('  "files": [')
    lines.append(",\n".join("    " + json.dumps(record, ensure_ascii=False, allow_nan=False) for record in records))
    lines += ["  ]", "}", ""]
    try:
        write_text(path, "\n".join(lines))
    except ValueError as error:
        raise ManifestError(str(error)) from error
