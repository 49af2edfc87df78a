#!/usr/bin/env bash
# From nothing to a first result: makes .venv, then adapts the bundled backbone to two tasks in four ways.
# Usage: bash scripts/quickstart.sh [overrides]     A second run reuses every stage.
set -euo pipefail
overrides=("$@")
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""

echo "The bundled backbone on real handwriting (mnist5k) and on generated pictures (shapes_orientation)." >&2
echo "LoRA with 24 adapters; three quarters are pruned, except in the dense row." >&2
mkdir -p outputs
.venv/bin/pear run -m dataset=mnist5k,shapes_orientation experiment=dense,prune_only,prune_share,pear \
    optim.epochs=6 "${overrides[@]}" >outputs/quickstart.txt
echo "One seed each: a demonstration, not a comparison; several seeds: pear run -m seed=0,1,2 ..." >&2
echo "The share map of the last one: .venv/bin/pear show $(tail -n 1 outputs/quickstart.txt)" >&2
