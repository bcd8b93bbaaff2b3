#!/usr/bin/env bash
# Run the fast part of the test suite with the lowest versions that setup.cfg allows, in a new virtual environment.
# The versions are read from setup.cfg: nothing is repeated here. Not part of CI, since it downloads some gigabytes.
#
# Usage: scripts/test_lowest_versions.sh [FOLDER]    (default: a temporary folder, which is removed at the end)
# PYTHON names the interpreter (default: python3), TORCH_INDEX an index with CPU builds of torch, and KEEP_TORCH=1 takes
# the torch of that interpreter instead of the lowest one.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
folder=${1:-}
if [ -z "$folder" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi

"$python" - "${KEEP_TORCH:-0}" > "$folder.txt" <<'PYTHON'
"""Print the lowest allowed version of every requirement of setup.cfg that applies here."""
import configparser
import re
import sys

config = configparser.ConfigParser()
config.read("setup.cfg")
lines = config["options"]["install_requires"].splitlines()
for name, extra in config["options.extras_require"].items():
    if name not in ("ray", "browser", "dev"):  # dev holds all of them; their tests are not fast
        lines += extra.splitlines()
lowest = {}
for line in lines:
    requirement = line.split("#")[0].partition(";")[0].strip()
    match = re.match(r"([A-Za-z0-9._-]+)(\[[^\]]*\])?", requirement)
    floor = re.search(r">=\s*([0-9][^,\s]*)", requirement)
    if match and floor and not match[1].lower().startswith("sind-hf"):
        key = lambda version: [int(number) for number in re.findall(r"\d+", version)]
        name = match[1] + (match[2] or "")
        lowest[name] = max(lowest.get(name, "0"), floor[1], key=key)
keep = sys.argv[1] == "1"
for name, version in sorted(lowest.items()):
    if not (keep and re.match("torch(vision)?$", name)):
        print(f"{name}=={version}")
PYTHON
echo "Lowest versions:"; cat "$folder.txt"

if [ "${KEEP_TORCH:-0}" = 1 ]; then
  "$python" -m venv --system-site-packages "$folder"
else
  "$python" -m venv "$folder"
fi
"$folder/bin/pip" install --quiet ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} -r "$folder.txt" pytest hypothesis  # the fast tests need no more
"$folder/bin/pip" install --quiet --no-deps .
rm -f "$folder.txt"
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/bin/python" -m pytest -q -m "not slow and not gpu" tests
