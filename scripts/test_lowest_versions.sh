#!/usr/bin/env bash
# Run the fast part of the test suite with the lowest versions that setup.cfg allows, in a new virtual environment.
# uv (pip install uv) finds these versions. Not part of CI, since torch alone is a download of some gigabytes;
# UV_TORCH_BACKEND=cpu takes its small CPU build where the index of such builds is reachable.
#
# Usage: scripts/test_lowest_versions.sh [FOLDER]    (default: a temporary folder, which is removed at the end)
# PYTHON names the interpreter (default: python3).
set -euo pipefail
cd "$(dirname "$0")/.."
folder=${1:-}
if [ -z "$folder" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi

uv venv --clear --python "${PYTHON:-python3}" "$folder"
export VIRTUAL_ENV=$folder
uv pip install --resolution lowest-direct '.[data,eval,metrics,app,onnx,formats,recipe,demo]'
uv pip list
uv pip install pytest hypothesis  # the fast tests need no other tool
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 "$folder/bin/python" -m pytest -q -m "not slow and not gpu" tests
