#!/usr/bin/env bash
# Checks everything: style, types, tests. Makes its own environment in .venv. --all runs the slow tests too.
# Usage: bash scripts/test.sh [--all] [pytest arguments]
set -euo pipefail
pytest_arguments=()
for argument in "$@"; do
  case $argument in
    --all) pytest_arguments+=(-m "") ;;
    *) pytest_arguments+=("$argument") ;;
  esac
done
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "[test,docs]"

export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy pear_cli
.venv/bin/pytest -n "${PEAR_TEST_PROCESSES:-2}" "${pytest_arguments[@]}"
