#!/usr/bin/env bash
# From nothing to a first result: makes .venv, then runs pear on two bundled tasks and compares four variants.
# Usage: bash scripts/quickstart.sh     A second run reuses every stage.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""

tasks=mnist5k,shapes_orientation
.venv/bin/pear run -m dataset=$tasks experiment=dense,prune,prune_share,pear optim.epochs=6 \
    prune.ratio=0.75 >outputs/quickstart.txt
