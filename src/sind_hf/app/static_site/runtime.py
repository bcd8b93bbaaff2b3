"""Files of onnxruntime-web that a site needs, from its npm package; each is checked by its hash."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from huggingface_hub import cached_assets_path

from sind_hf.files import atomic_file

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
PACKAGE_MB = 33  # to download; the files below are packed to 10 MB in a site
FETCH_SECONDS = 900


# By the name of the execution provider: the JavaScript module and the WebAssembly binary that it loads.
RUNTIMES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
# SHA-256 of these files, which are in the folder `dist` of the package.
HASHES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.bundle.min.mjs": "0730816731ce2cdfb06f273da065d4a1c7091eb9d1756a83b2916c8a89d015e2",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}


def read_runtime(source: str | os.PathLike[str] | None = None) -> dict[str, bytes]:
    """Return the contents of all files of `HASHES`, by name.

    Args:
        source: npm package onnxruntime-web: its `.tgz`, its unpacked folder, or the folder `dist` in it. Default:
            the copy that an earlier call kept; without one, npm fetches the package and this call keeps it.

    Raises:
        ValueError: When a file is missing or belongs to another version, or the package cannot be fetched.
    """
    path = fetched_package() if source is None else Path(source)
    found = _read_archive(path) if path.is_file() else _read_folder(path)
    for name, expected in HASHES.items():
        if name not in found:
            raise ValueError(f"{path}: has no {name}: name the npm package {PACKAGE}, as a folder or .tgz file.")
        if hashlib.sha256(found[name]).hexdigest() != expected:
            raise ValueError(
                f"{path}: {name} is not the one of {PACKAGE} (its hash differs): delete it and fetch it again."
            )
    return found


def fetched_package() -> Path:
    """Return the `.tgz` file of the npm package; npm fetches it on the first call.

    Raises:
        ValueError: When npm is missing or fails.
    """
    folder = cached_assets_path("sind_hf", "onnxruntime-web", VERSION)
    kept = folder / f"onnxruntime-web-{VERSION}.tgz"
    if kept.is_file():
        return kept
    by_hand = f"or give a copy of the package {PACKAGE} with --runtime"
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            f"The page needs {PACKAGE}, and npm, which fetches it, is missing: install Node.js, {by_hand}."
        )
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [npm, "pack", PACKAGE, "--silent", "--ignore-scripts", "--pack-destination", temporary]
        try:
            # An empty folder has no settings of a user's project that npm would follow.
            subprocess.run(command, cwd=temporary, check=True, capture_output=True, text=True, timeout=FETCH_SECONDS)
            with atomic_file(kept) as whole:
                shutil.copyfile(Path(temporary) / kept.name, whole)
        except subprocess.TimeoutExpired:
            raise ValueError(
                f"npm took more than {FETCH_SECONDS} s to fetch {PACKAGE}: try again, {by_hand}."
            ) from None
        except subprocess.CalledProcessError as error:
            lines = [line for line in error.stderr.splitlines() if line.strip()]
            reason = lines[0] if lines else f"exit code {error.returncode}"
            raise ValueError(f"npm could not fetch {PACKAGE} ({reason}): check the network, {by_hand}.") from None
    return kept


def _read_folder(path: Path) -> dict[str, bytes]:
    dist = path / "dist" if (path / "dist").is_dir() else path
    return {name: (dist / name).read_bytes() for name in HASHES if (dist / name).is_file()}


def _read_archive(path: Path) -> dict[str, bytes]:
    wanted = {f"package/dist/{name}": name for name in HASHES}
    found = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.name in wanted and (file := archive.extractfile(member)) is not None:
                    found[wanted[member.name]] = file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(
            f"{path}: cannot be read as an npm package ({error}): delete it and fetch it again."
        ) from error
    return found
