# shellcheck shell=bash
# Sourced by layer/build and layer/update-lock: runs a module of layer/recipe with a Python 3.11 or newer.
run_recipe() {
    local python
    cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." || exit
    for python in "${PYTHON:-python3}" .venv/bin/python python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$python" >/dev/null && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            PYTHONDONTWRITEBYTECODE=1 exec "$python" -m "layer.recipe.$1" "${@:2}"
        fi
    done
    echo "layer: Python 3.11 or newer is needed: apt-get install python3 (or set PYTHON=/path/to/python3)" >&2
    exit 1
}
