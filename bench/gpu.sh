#!/usr/bin/env bash
# What to measure on a machine with an NVIDIA GPU, in few calls of under ten minutes each.
#
#   bash bench/gpu.sh [OUT]            everything below, results in OUT (default: $OUT, else bench/out)
#   STEPS="sanity speed" bash bench/gpu.sh
#
# Steps, in order of what is most worth knowing:
#   sanity   `sanity preh100` as the runbook calls it, with the capacity of h100-100m: numerics, compile, memory, tokens/s
#   speed    200 steps of h100-100m through the real training loop on real tokens: tokens/s, MFU, memory, loss
#   backends every attention backend's error against float32 math at the shapes of h100-100m
#
# The real tokens come from parquet files in SOURCE (default: the demo's text, demo/out/source). The machine needs the
# package's dependencies; a source tree is enough (PYTHONPATH=src). DEVICE=cpu SCALE=tiny is the dry run of this script.
# Prints one JSON line per figure at the end of OUT/gpu.jsonl; leaves the card's settings alone.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-${OUT:-bench/out}}"
device="${DEVICE:-cuda}" scale="${SCALE:-h100-100m}" precision="${PRECISION:-$([ "${DEVICE:-cuda}" = cuda ] && echo bf16 || echo float32)}"
steps="${STEPS:-sanity backends speed}" source="${SOURCE:-demo/out/source}" timed="${TIMED_STEPS:-200}"
python="${PYTHON:-python3}"
mkdir -p "$out"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PICOCHAT_HOME="$out/cache"
picochat() { "$python" -m picochat.cli.main "$@"; }
wants() { [[ " $steps " == *" $1 "* ]]; }
command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version,power.limit,clocks.sm,clocks.mem --format=csv || true

if wants sanity; then
  picochat sanity preh100 --out-dir "$out/sanity" --device "$device" --precision "$precision" --matmul-precision high \
    --attn-backend "${ATTN:-flash}" $([ "$device" = cuda ] && echo --include-compile) --capacity-scale "$scale" \
    2>&1 | tee "$out/sanity.log"
fi

if wants backends; then
  "$python" bench/backends.py --device "$device" --precision "$precision" --scale "$scale" | tee -a "$out/gpu.jsonl"
fi

if wants speed; then
  [ -d "$source" ] || "$python" demo/fetch_corpus.py "$source"
  "$python" bench/train.py --device "$device" --precision "$precision" --scale "$scale" --steps "$timed" --source "$source" \
    --attn-backend "${ATTN:-flash}" | tee -a "$out/gpu.jsonl"
fi
