#!/bin/sh
# Collect what scripts/benchmarks/gpu.py needs in one folder of wheels, for a GPU machine that has torch but no network.
#
#     scripts/benchmarks/gpu_wheels.sh FOLDER       collect this package and the versions that are installed here
#     scripts/benchmarks/gpu_wheels.sh --list       print what would be collected
#
# On the GPU machine, which must have the same version of Python:
#
#     python -m pip install --no-index --no-deps FOLDER/*.whl
#     python scripts/benchmarks/gpu.py --output gpu
#
# torch and what it brings stay as they are on that machine.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
requirements=$(python - "$root/setup.cfg" <<'END'
import configparser
import importlib.metadata
import re
import sys

SKIPPED = re.compile("torch|triton|nvidia|cuda|setuptools|pip|wheel|sympy|networkx|mpmath", re.IGNORECASE)
config = configparser.ConfigParser()
config.read(sys.argv[1])
waiting = config["options"]["install_requires"].splitlines() + ["psutil"]
found = {}
while waiting:
    match = re.match(r"[A-Za-z0-9._-]+", waiting.pop().strip())
    name = match[0].lower().replace("_", "-") if match else ""
    if not name or name in found or SKIPPED.match(name):
        continue
    try:
        package = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        continue
    found[name] = package.version
    waiting += [line for line in package.requires or [] if "extra ==" not in line]
print("\n".join(f"{name}=={version}" for name, version in sorted(found.items())))
END
)
if [ "${1:-}" = --list ]; then
    printf '%s\n' "$requirements"
    exit
fi
folder=${1:?name the folder for the wheels}
mkdir -p "$folder"
printf '%s\n' "$requirements" > "$folder/requirements.txt"
python -m pip download --no-deps --only-binary=:all: --dest "$folder" --requirement "$folder/requirements.txt"
python -m pip wheel --no-deps --wheel-dir "$folder" "$root"
