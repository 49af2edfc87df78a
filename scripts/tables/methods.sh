#!/usr/bin/env bash
# Every method on the bundled tasks at the same number of trained parameters; prints a Markdown table on stdout.
# Usage: bash scripts/tables/methods.sh [--quick]     Resumes where it was stopped; see scripts/tables/methods.py.
set -euo pipefail
arguments=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" ""
exec .venv/bin/python scripts/tables/methods.py "${arguments[@]}"
