#!/usr/bin/env bash
# What to measure on a machine with an NVIDIA GPU, in steps of under ten minutes each, the most worth knowing first.
#
#   bash bench/gpu.sh [OUT]                        every step, results in OUT (default: $OUT, else bench/out)
#   STEPS="correct sanity" bash bench/gpu.sh       some of them; each can be a call of its own
#   DEVICE=cpu SCALE=tiny TIMED_STEPS=3 bash bench/gpu.sh     the dry run of this script, in some minutes
#
#   correct  every attention backend, with heads as they are and repeated: error against float32 math, time at the scale's shapes
#   sanity   `sanity preh100` as the runbook calls it: numerics, resume, compiled against eager, host waits, memory, forecast
#   speed    the scale's step with Muon and AdamW beside a plain compiled step, in turns; what a step waits for; the whole loop
#   levers   each lever alone beside all of them: joined products, loader, repeated heads, micro-batch, autotuning
#   pilot    the same as `speed` for the pilot scale
#   start    process start to first step, with an empty cache and a warm one
#   graph    the kernels that the compiler makes of the step
#   recipe   the pilot scale without its start from counts, with a teacher, and other rates, at equal tokens (RECIPE_TOKENS)
#   nanochat the loss of the pilot scale at equal time (NANOCHAT_SECONDS) beside nanochat, whole and stripped, on the same text.
#            Only where NANOCHAT names a checkout of it, with what it imports installed
#   path     the whole path at the pilot scale (bench/path.sh), to a verdict, a verified bundle and an export; ROWS and PATH_FLAGS
#            (such as --base-steps 2000) fit it to the time. Not among the steps that run unasked on a CPU's dry run.
#
# Real tokens come from parquet files in SOURCE (default: the demo's text, demo/out/source). The machine needs the package's
# dependencies; a source tree is enough. Compiled kernels are kept in OUT/cache between the steps. JSON lines go to
# OUT/gpu.jsonl, and to the end of the output. A step that fails is named and the others go on. The card's settings are left
# alone.
set -uo pipefail
cd "$(dirname "$0")/.."
out="${1:-${OUT:-bench/out}}"
device="${DEVICE:-cuda}" scale="${SCALE:-h100-100m}" source="${SOURCE:-demo/out/source}" timed="${TIMED_STEPS:-200}"
if [ "$device" = cuda ]; then precision="${PRECISION:-bf16}" pilot="${PILOT:-h100-pilot}" compile="--compile"
else precision="${PRECISION:-float32}" pilot="${PILOT:-tiny}" compile="--no-compile"; fi
steps="${STEPS:-correct sanity speed levers pilot start graph recipe${NANOCHAT:+ nanochat}$([ "$device" = cuda ] && echo " path")}"
python="${PYTHON:-python3}" limit="${LIMIT_S:-570}" recipe_tokens="${RECIPE_TOKENS:-$([ "$device" = cuda ] && echo 60000000 || echo 20000)}"
mkdir -p "$out"
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PICOCHAT_HOME="$out/cache"
failed=""
wants() { [[ " $steps " == *" $1 "* ]]; }
# run NAME COMMAND...: its lines of JSON also go to gpu.jsonl, everything to NAME.log
run() {
  local name="$1"; shift
  echo "== $name: $*"
  if timeout "$limit" "$@" 2>&1 | tee -a "$out/$name.log" | tee >(grep '^{' >> "$out/gpu.jsonl"); then :; else
    failed="$failed $name"; echo "== $name failed (exit ${PIPESTATUS[0]})"; fi
}
bench() { local name="$1" script="$2"; shift 2; run "$name" "$python" "bench/$script" --device "$device" --precision "$precision" "$@"; }
command -v nvidia-smi > /dev/null && nvidia-smi --query-gpu=name,driver_version,power.limit,clocks.sm,clocks.mem,temperature.gpu --format=csv
[ -d "$source" ] || "$python" demo/fetch_corpus.py "$source"

wants correct && bench correct backends.py --scale "$scale"
wants sanity && run sanity "$python" -m picochat.cli.main sanity preh100 --out-dir "$out/sanity" --device "$device" \
  --precision "$precision" --matmul-precision high --attn-backend "${ATTN:-flash}" $([ "$device" = cuda ] && echo --include-compile) \
  --capacity-scale "$scale" --gpu-hour-usd "${GPU_HOUR_USD:-3}"
wants speed && bench speed train.py --scale "$scale" --steps "$timed" $compile --source "$source" --baseline \
  --optimizer muon --optimizer adamw --loop
wants levers && bench levers train.py --scale "$scale" --steps "$((timed / 2 + 1))" $compile --source "$source" \
  --lever joined=off --lever loader=host --lever heads=repeated --lever heads=native $([ "$device" = cuda ] && echo --lever autotune=on)
wants levers && bench levers train.py --scale "$scale" --steps "$((timed / 4 + 1))" $compile --source "$source" --micro-batch "${MICRO:-$([ "$device" = cuda ] && echo 32 || echo 4)}"
wants pilot && bench pilot train.py --scale "$pilot" --steps "$timed" $compile --source "$source" --baseline --optimizer muon --optimizer adamw
wants start && bench start start.py --scale "$scale" --sequences 2 $([ "$device" = cpu ] && echo --quick)
wants graph && bench graph graph.py --scale "$scale" --layers 2 $([ "$device" = cpu ] && echo --quick)
if wants recipe; then
  for setting in "" counts.start=false counts.teacher=1 base.muon_momentum=0.9 base.muon_lr=0.01 base.muon_lr=0.03 base.adamw_lr=0.008; do
    run recipe "$python" bench/recipe.py --scale "$pilot" --tokens "$recipe_tokens" --source "$source" --device "$device" \
      --precision "$precision" ${setting:+--set "$setting"}
  done
fi
wants nanochat && run nanochat "$python" bench/peers.py --loss --loss-seconds "${NANOCHAT_SECONDS:-60}" --device "$device" \
  --scale "$pilot" --megabytes "${MEGABYTES:-$([ "$device" = cuda ] && echo 60 || echo 2)}" --seeds 1 --only nanochat-stripped,nanochat --source "$source" \
  --nanochat-times "$([ "$device" = cuda ] && echo 1x1,2x1 || echo 64x8)"
# shellcheck disable=SC2086
wants path && DEVICE="$device" PRECISION="$precision" SCALE="$pilot" SOURCE="$source" PYTHON="$python" run path bash bench/path.sh "$out/path" ${PATH_FLAGS:-}
echo "== figures in $out/gpu.jsonl${failed:+; failed:$failed}"
[ -z "$failed" ]
