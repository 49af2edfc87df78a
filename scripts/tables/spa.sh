#!/usr/bin/env bash
# Structured pruning with adapters and with fine-tuning, at 30, 50, 70 and 90%; prints a Markdown table on stdout.
# Usage: bash scripts/tables/spa.sh [--tasks digits]     Resumes where it was stopped; see scripts/tables/spa.py.
set -euo pipefail
arguments=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" ""
exec .venv/bin/python scripts/tables/spa.py "${arguments[@]}"
