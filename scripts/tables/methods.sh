#!/usr/bin/env bash
# Every method on the bundled tasks at the same number of trained parameters.
# Usage: bash scripts/tables/methods.sh [--tasks digits] [--seeds 1]     Cells go to docs/results/methods.json; a run that was stopped resumes.
set -euo pipefail
arguments=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" ""
exec .venv/bin/python scripts/tables/methods.py "${arguments[@]}"
