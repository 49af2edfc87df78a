#!/usr/bin/env bash
# Draws the pictures of the README and the docs from real runs, into docs/pictures: the quickstart's, and one with heads.
# Stages that are in outputs/store already are reused. A browser draws the report: chromium must be installed.
# Usage: bash scripts/docs/pictures.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" "[test]"

.venv/bin/python scripts/docs/pictures.py
