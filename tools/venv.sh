#!/bin/sh
# venv.sh PYTHON FOLDER: a virtual environment with the pinned requirements and this checkout in it.
set -eu

python=$1 folder=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "rackserve needs Python 3.11 or newer, $python is $("$python" --version): make PYTHON=python3.13 ..." >&2
  exit 1
}
# Tests that run use it: tools/suite holds this lock meanwhile.
mkdir -p build
exec 9>>build/suite.lock
if command -v flock >/dev/null && ! flock --nonblock 9; then
  echo "$folder is not up to date, and tests use it in this checkout: wait for them, or use another checkout" >&2
  exit 1
fi
echo "setting up $folder" >&2
rm -rf "$folder"
"$python" -m venv "$folder"
"$folder/bin/pip" install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt
"$folder/bin/pip" install -qq --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
touch "$folder/ready"
