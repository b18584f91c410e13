#!/usr/bin/env bash
# Rows G1 to G11 on one CUDA machine, in under ten minutes: made-up images, random weights of the
# published model's size. Files: benchmarks/results/bench-full-cuda-DATE.{json,md,svg}.
#
#   bash benchmarks/gpu.sh                 on the first GPU
#   DRY_RUN=1 bash benchmarks/gpu.sh       the same rows on the CPU with a small model, to try it out
#
# Settings: DEVICE (cuda), OUT (benchmarks/results), ONLY (keys of rows; all), OVSAM (the command).
set -euo pipefail
cd "$(dirname "$0")/.."

OUT=${OUT:-benchmarks/results}
ONLY=${ONLY:-C4,C5,trunk,C8,G1,G2,G3,G4,G5,G6,G7,G8,G9,G10,G11}
if [ -z "${OVSAM:-}" ]; then
    OVSAM=ovsam
    [ -x .venv/bin/ovsam ] && OVSAM=.venv/bin/ovsam
fi
mkdir -p "$OUT"

if [ -n "${DRY_RUN:-}" ]; then
    # shellcheck disable=SC2086  # OVSAM may be a command with arguments
    exec $OVSAM bench --device cpu --suite full --preset small --scale minimal --only "$ONLY" --out "$OUT"
fi

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
# shellcheck disable=SC2086
exec $OVSAM bench --device "${DEVICE:-cuda}" --suite full --preset rn50x16 --only "$ONLY" \
    --threads "${THREADS:-4}" --out "$OUT"
