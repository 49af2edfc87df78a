#!/usr/bin/env bash
# Measures a sample of the published figures again, and says which are not as published: the quickstart's table, and
# three cells of each big table. Takes some minutes; exit code 1 where one differs. Usage: bash scripts/check_figures.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""
exec .venv/bin/python scripts/tables/check.py "$@"
