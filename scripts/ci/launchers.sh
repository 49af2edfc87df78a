#!/usr/bin/env bash
# Sweeps on joblib, Ray and Slurm, each of which loses a worker midway: the results must be those of jobs in turn.
#   sudo bash scripts/ci/launchers.sh        .venv-launchers, Slurm on localhost, then tests/launch/test_launchers.py
set -euo pipefail
cd "$(dirname "$0")/../.."

bash scripts/ci/slurm.sh
if [ ! -x .venv-launchers/bin/python ]; then
    python3 -m venv .venv-launchers
    .venv-launchers/bin/pip install -q '.[test,ray,slurm]'
fi
OMP_NUM_THREADS=1 PYTHONPATH=$PWD .venv-launchers/bin/python -m pytest -q -rs tests/launch/test_launchers.py "$@"
