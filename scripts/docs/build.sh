#!/usr/bin/env bash
# Builds the documentation into outputs/docs, without a network; a warning is an error. Makes its own environment in .venv.
# Usage: bash scripts/docs/build.sh [arguments of mkdocs build]     Then open outputs/docs/index.html.
set -euo pipefail
mkdocs_arguments=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/../environment.sh" "[docs]"

NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict "${mkdocs_arguments[@]}"
