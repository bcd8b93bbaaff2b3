"""Checks of a manifest: its header, its entries and the image files that they name.

The checks work on plain JSON values, so that the same rules apply to a file and to a manifest in memory. Each check
reports all problems that it finds.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from sind_hf.files import reason, shown
from sind_hf.image_processing_sind import ImageError, load_image, printable

SCHEMA_VERSION = 1
HEADER_KEYS = ("schema_version", "dataset", "score", "domain_name", "reference_based", "source")
SCORE_KEYS = ("name", "range", "higher_is_better")
ENTRY_KEYS = ("image", "score", "scene", "domain_id", "reference", "distortion")

#: Larger scores would make sums and differences inexact.
LARGEST_SCORE = 1e12
LARGEST_DOMAIN_ID = 2**31 - 1
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes
#: No more problems of a file are counted.
MOST_PROBLEMS = 1000
#: Images per task of the thread pool. Looking a file up takes less time than handing a task over.
_LOOKED_UP_TOGETHER = 64
#: Images that the pool gets at once, so that it does not hold tasks for the whole dataset.
_LOOKED_UP_AT_ONCE = 128 * _LOOKED_UP_TOGETHER

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_DRIVE = re.compile(r"[A-Za-z]:")

ProblemKind = Literal["format", "score", "path", "duplicate", "scene", "missing", "unreadable"]
Progress = Callable[[int, int], None]


class ManifestError(ValueError):
    """A manifest cannot be used. The message is one line: the file, the entry, what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a manifest.

    Attributes:
        kind: Kind of problem. `"missing"` and `"unreadable"` concern image files, the others the manifest.
        what: Message: what is wrong and what to do, without the place.
        entry: Number of the entry, from 1; None for a problem of the header.
        line: Line of the file on which the entry starts, from 1; None for a manifest in memory.
        image: Path of the image as the manifest gives it.
    """

    kind: ProblemKind
    what: str
    entry: int | None = None
    line: int | None = None
    image: str | None = None

    def __str__(self) -> str:
        place = "" if self.entry is None else f"entry {self.entry}"
        if self.line is not None:
            place += f" (line {self.line})"
        if self.image is not None:
            place += f" {shown(self.image)}"
        return f"{place}: {self.what}" if place else self.what


def require_image_root(image_root: str | os.PathLike[str]) -> Path:
    """Return the path of an image root.

    Raises:
        ManifestError: If it is not a folder.
    """
    if not Path(image_root).is_dir():
        raise ManifestError(f"{image_root}: the image root is not a folder; name the folder of the images.")
    return Path(image_root)


def require_utf8_name(folder: Path) -> None:
    """Refuse a folder whose name the tables of `datasets` cannot hold.

    Raises:
        ManifestError: If the name is not UTF-8.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        readable = os.fsencode(folder).decode("utf-8", "backslashreplace")
        raise ManifestError(f"{readable}: the name of this folder is not UTF-8; rename it") from None


def score_fault(score: object) -> str | None:
    """Return what is wrong with an opinion score; None if it is valid."""
    if isinstance(score, str):
        return f"score is the string {shown(score)}; write it as a number without quotes"
    # A boolean is not a number in JSON, although Python counts it as an int.
    if isinstance(score, bool) or not isinstance(score, int | float):
        return f"score is {shown(score)}; it must be a number"
    # Compared before it is converted, because float() overflows for an integer of hundreds of digits.
    if not -LARGEST_SCORE <= score <= LARGEST_SCORE:
        return f"score is {shown(score)}; it must be finite and at most {LARGEST_SCORE:g} in size"
    return None


def label_fault(name: str, value: object) -> str | None:
    """Return what is wrong with a text field such as scene or dataset; None if it is valid."""
    if not isinstance(value, str):
        return f"{name} is {shown(value)}; it must be a string"
    if not value.strip():
        return f"{name} is empty; leave it out or give it a name"
    if _CONTROL.search(value):
        return f"{name} {shown(value)} holds control characters or broken Unicode; remove them"
    return None


def path_fault(name: str, value: object) -> str | None:
    """Return what is wrong with a path of a manifest; None if it is valid.

    Paths are relative to the image root, POSIX, and stay inside it. `file_fault` checks symbolic links on the disk.
    """
    if fault := label_fault(name, value):
        return fault
    path = str(value)
    if "\\" in path:
        return f"{name} {shown(path)} holds a backslash; write paths with forward slashes"
    if path.startswith("/") or _DRIVE.match(path):
        return f"{name} {shown(path)} is absolute; write it relative to the image root"
    parts = path.split("/")
    if ".." in parts:
        return f"{name} {shown(path)} contains '..'; paths must stay inside the image root"
    if parts[-1] in ("", "."):
        return f"{name} {shown(path)} names a folder; name the image file"
    if any(len(part.encode()) > LONGEST_NAME for part in parts) or len(path.encode()) > LONGEST_PATH:
        return f"{name} {shown(path)} is longer than file systems allow; give the name of a file"
    return None


def domain_fault(domain_id: object) -> str | None:
    """Return what is wrong with a domain ID; None if it is valid."""
    if not isinstance(domain_id, int) or isinstance(domain_id, bool) or not 0 <= domain_id <= LARGEST_DOMAIN_ID:
        return f"domain_id is {shown(domain_id)}; it must be an integer from 0 to {LARGEST_DOMAIN_ID}"
    return None


def normal_path(path: str) -> str:
    """Return `path` without empty parts (`./`, `//`), so that two spellings of a file compare equal."""
    return "/".join(part for part in path.split("/") if part not in ("", "."))


def header_problems(header: Mapping[str, object]) -> list[Problem]:
    """Return the problems of the header: all of a manifest of schema version 1 except `files`."""
    version = header.get("schema_version")
    if version != SCHEMA_VERSION or not isinstance(version, int) or isinstance(version, bool):
        what = f"schema_version is {shown(version)}; this version of sind-hf reads {SCHEMA_VERSION}: upgrade sind-hf"
        return [Problem("format", what)]
    faults: list[str | None] = [
        unknown_key_fault(key, (*HEADER_KEYS, "files")) for key in header if key not in HEADER_KEYS
    ]
    faults.append(label_fault("dataset", header.get("dataset")))
    faults += _score_info_faults(header.get("score"))
    faults += islice(_domain_name_faults(header.get("domain_name")), MOST_PROBLEMS)
    if not isinstance(header.get("reference_based", False), bool):
        faults.append(f"reference_based is {shown(header['reference_based'])}; it must be true or false")
    if header.get("source") is not None:
        faults.append(label_fault("source", header["source"]))
    return [Problem("format", fault) for fault in faults if fault]


def unknown_key_fault(key: str, known: Sequence[str]) -> str:
    """Return a message that `key` is unknown, with the nearest known key."""
    near = get_close_matches(key[:80], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(known)}"
    return f"the key {shown(key)} is unknown; {hint}"


def _score_info_faults(score: object) -> list[str | None]:
    if score is None:
        return []
    if not isinstance(score, Mapping):
        return [f"score of the header is {shown(score)}; it must be an object with {', '.join(SCORE_KEYS)}"]
    faults: list[str | None] = [unknown_key_fault(key, SCORE_KEYS) for key in score if key not in SCORE_KEYS]
    if "name" in score:
        faults.append(label_fault("score.name", score["name"]))
    if not isinstance(score.get("higher_is_better", True), bool):
        faults.append(f"score.higher_is_better is {shown(score['higher_is_better'])}; it must be true or false")
    bounds = score.get("range")
    if bounds is not None:
        if not isinstance(bounds, list | tuple) or len(bounds) != 2 or any(score_fault(bound) for bound in bounds):
            faults.append("score.range must be null or two finite numbers [lowest, highest]")
        elif not bounds[0] < bounds[1]:
            faults.append(f"score.range [{bounds[0]:g}, {bounds[1]:g}] is empty; the first number must be the lower")
    return faults


def _domain_name_faults(domain_name: object) -> Iterator[str]:
    if domain_name is None:
        return
    if not isinstance(domain_name, Mapping):
        yield f"domain_name is {shown(domain_name)}; it must be an object of domain id to name"
        return
    for key, name in domain_name.items():
        if not (re.fullmatch("0|[1-9][0-9]{0,9}", key) and int(key) <= LARGEST_DOMAIN_ID):
            yield f"domain_name has the key {shown(key)}; it must be a domain id from 0 to {LARGEST_DOMAIN_ID}"
        elif fault := label_fault(f"domain_name of {key}", name):
            yield fault


def entry_faults(record: Mapping[str, object]) -> list[tuple[ProblemKind, str]]:
    """Return what is wrong with one entry, without looking at the others."""
    faults: list[tuple[ProblemKind, str | None]] = [
        ("format", unknown_key_fault(key, ENTRY_KEYS)) for key in record if key not in ENTRY_KEYS
    ]
    if "image" not in record:
        faults.append(("format", "image is missing; every entry needs image and score"))
    else:
        faults.append(("path", path_fault("image", record["image"])))
    if "score" not in record:
        faults.append(("format", "score is missing; every entry needs image and score"))
    else:
        faults.append(("score", score_fault(record["score"])))
    if record.get("domain_id") is not None:
        faults.append(("scene", domain_fault(record["domain_id"])))
    if record.get("scene") is not None:
        faults.append(("scene", label_fault("scene", record["scene"])))
    if record.get("reference") is not None:
        faults.append(("path", path_fault("reference", record["reference"])))
    if record.get("distortion") is not None:
        faults.append(("format", label_fault("distortion", record["distortion"])))
    return [(kind, fault) for kind, fault in faults if fault]


def record_problems(records: Sequence[object], domain_names: Mapping[int, str]) -> Iterator[Problem]:
    """Yield the problems of the entries: faults, duplicates, and scenes that contradict each other.

    A generator, because a hostile file could otherwise cost the memory of a million messages.
    """
    if not records:
        yield Problem("format", "files is empty; a manifest needs at least one entry")
    first_with_path: dict[str, int] = {}
    scene_of: dict[int, tuple[str, str]] = {key: (name, "domain_name") for key, name in domain_names.items()}
    for number, record in enumerate(records, start=1):
        if not isinstance(record, Mapping):
            yield Problem("format", f"the entry is {shown(record)}; it must be an object with image and score", number)
            continue
        faults = entry_faults(record)
        path_ok = not any(kind == "path" for kind, _ in faults) and isinstance(record.get("image"), str)
        image = str(record["image"]) if path_ok else None
        for kind, what in faults:
            yield Problem(kind, what, number, image=image)
        if image is not None:
            first = first_with_path.setdefault(normal_path(image), number)
            if first != number:
                what = f"the image is already entry {first}; keep one of the two"
                yield Problem("duplicate", what, number, image=image)
        scene, domain_id = record.get("scene"), record.get("domain_id")
        if isinstance(scene, str) and isinstance(domain_id, int) and not faults:
            known, where = scene_of.setdefault(domain_id, (scene, f"entry {number}"))
            if known != scene:
                what = f"scene is {shown(scene)} but domain {domain_id} is {shown(known)} in {where}; make them agree"
                yield Problem("scene", what, number, image=image)


def image_problems(
    images: Sequence[str],
    image_root: str | os.PathLike[str],
    verify: bool = False,
    progress: Progress | None = None,
    follow_links: bool = False,
) -> list[Problem]:
    """Find the image files that are missing, outside the image root or, with `verify`, unreadable.

    Args:
        images: Valid manifest paths.
        image_root: Folder that the paths are relative to.
        verify: Whether to decode every image completely, which finds truncated files. Otherwise the files are only
            looked up.
        progress: Called with (images done, images in all) after each image.
        follow_links: See `file_fault`.
    """
    root = Path(image_root).resolve()
    if not root.is_dir():
        what = f"the image root {shown(str(image_root))} is not a folder; name the folder of images"
        return [Problem("missing", what)]
    inside: dict[str, bool] = {}

    def check(block: Sequence[str]) -> list[tuple[ProblemKind, str] | None]:
        return [
            file_fault(root, image, follow_links=follow_links, inside=inside)
            or (_decoding_fault(root / image) if verify else None)
            for image in block
        ]

    problems = []
    # Threads help: decoding releases the interpreter lock, and looking files up waits for the disk.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(images), _LOOKED_UP_AT_ONCE):
            batch = images[start : start + _LOOKED_UP_AT_ONCE]
            size = 1 if verify else _LOOKED_UP_TOGETHER
            blocks = [batch[first : first + size] for first in range(0, len(batch), size)]
            for number, fault in enumerate(chain.from_iterable(pool.map(check, blocks)), start=start + 1):
                if fault:
                    problems.append(Problem(*fault, number, image=images[number - 1]))
                if progress is not None:
                    progress(number, len(images))
    return problems


def file_fault(
    root: Path, image: str, *, follow_links: bool = False, inside: dict[str, bool] | None = None
) -> tuple[ProblemKind, str] | None:
    """Return why the file of a manifest entry cannot be used, without opening it; None if it can.

    Args:
        root: Image root, resolved.
        image: Valid manifest path.
        follow_links: Whether symbolic links, to the file or to a folder above it, may lead out of the image root.
        inside: Folders that were looked up before, and whether they are inside the root. Pass the same dictionary for
            all images of a dataset: it has hundreds of thousands of files in a few folders.
    """
    path = root / image
    inside = {} if inside is None else inside
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            real_inside = path.resolve(strict=True).is_relative_to(root)
            mode = path.stat().st_mode
        else:
            folder = str(path.parent)
            if folder not in inside:
                inside[folder] = path.parent.resolve(strict=True).is_relative_to(root)
            real_inside = inside[folder]
    except FileNotFoundError:
        return "missing", f"there is no such file under {shown(str(root))}; check the image root or the download"
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links
        return "missing", f"the file cannot be looked up ({reason(error)}); check the path and its permissions"
    if not (real_inside or follow_links):
        return "path", "a symbolic link leads out of the image root; allow it with --follow-links (follow_links=True)"
    if not stat.S_ISREG(mode):
        return "missing", "this is not a file; name an image file"
    return None


def link_fault(root: Path, image: str, inside: dict[str, bool] | None = None) -> str | None:
    """Return a message if a symbolic link leads from a manifest path out of the image root; see `file_fault`."""
    kind, what = file_fault(root, image, inside=inside) or (None, None)
    return what if kind == "path" else None


def _decoding_fault(path: Path) -> tuple[ProblemKind, str] | None:
    try:
        load_image(path)
    except ImageError as error:
        what = str(error).removeprefix(f"{printable(path)}: ")
        return "unreadable", f"the image cannot be decoded ({what}); download it again or leave it out"
    return None


def summary(problems: Sequence[Problem]) -> str:
    """Return the first problem and the number of the others, in one line."""
    others = len(problems) - 1
    if not others:
        return str(problems[0])
    least = "at least " if others + 1 >= MOST_PROBLEMS else ""
    return f"{problems[0]} (and {least}{others} more problem{'s' if others > 1 else ''})"
