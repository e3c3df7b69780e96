#!/usr/bin/env bash
# Run the GPU kit from its bundle: bash run.sh --budget 480 --out RESULTS [options of scripts.gpu_kit]
# Paths are relative to this folder. PYTHON names another interpreter than python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
python=${PYTHON:-python3}

if compgen -G "wheels/*.whl" >/dev/null && [ ! -e site/.installed ]; then
    "$python" -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir \
        --upgrade --target site wheels/*.whl
    touch site/.installed
fi
export PYTHONPATH="$PWD/site:$PWD${PYTHONPATH:+:$PYTHONPATH}"
"$python" -m scripts.gpu_kit.machine
exec "$python" -m scripts.gpu_kit "$@"
