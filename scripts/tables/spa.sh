#!/usr/bin/env bash
# Structured pruning with adapters and with fine-tuning, at 30, 50, 70 and 90%.
# Usage: bash scripts/tables/spa.sh [--tasks digits] [--seeds 1]     Cells go to docs/results/spa.json; a run that was stopped resumes.
set -euo pipefail
arguments=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" ""
exec .venv/bin/python scripts/tables/spa.py "${arguments[@]}"
