#!/usr/bin/env bash
# The whole path on local text, from parquet to a verified bundle and an export, with the runbook's commands at any scale.
#
#   DEVICE=cuda SCALE=h100-pilot SOURCE=FOLDER bash bench/path.sh OUT [more flags of `picochat run tiny`]
#
# SOURCE holds parquet files with a text column. The verdict may be a no (exit code 3): the evidence is whole all the same, and
# this ends with 0. Anything else that fails ends it. The same line goes on where it stopped. OUT/evidence.tgz is the bundle
# without weights, small enough to publish beside a report; OUT/run/report.html is the page to read first.
set -euo pipefail
out="$1"; shift
device="${DEVICE:-cuda}" scale="${SCALE:-h100-pilot}" source="$(cd "${SOURCE:-demo/out/source}" && pwd)"
if [ "$device" = cuda ]; then precision="${PRECISION:-bf16}"; else precision="${PRECISION:-float32}"; fi
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
python="${PYTHON:-python3}"
mkdir -p "$out/logs" "$out/pack"
cd "$out"
picochat() { "$python" -m picochat.cli.main "$@"; }
or_check_failed() { "$@" || { code=$?; [ "$code" -eq 3 ] || return "$code"; }; }

picochat data hf-import --dataset "$source" --split train --text-column text --max-rows "${ROWS:-1000000}" --min-chars 200 \
  --out sources/text/corpus.txt --documents-dir sources/text/documents --report sources/text/hf_import_report.json \
  --document-shard-rows 1000 2>&1 | tee logs/import.log
cat > pack/dataset_pack.json <<'JSON'
{"name": "local-text", "corpus": {"recipe": "corpus_recipe.json"}, "chat": "chat.jsonl", "eval": "eval.jsonl"}
JSON
cat > pack/corpus_recipe.json <<'JSON'
{"name": "local-text", "sources": [{"path": "../sources/text/documents", "label": "text"}]}
JSON
touch pack/chat.jsonl pack/eval.jsonl
picochat data task-pack --dataset-pack pack/dataset_pack.json --profile release_skills --sft-rows 2800 --eval-rows 700 \
  --skill-answer-style scratchpad --source offline --force 2>&1 | tee logs/task-pack.log
or_check_failed picochat run tiny --out-dir run --dataset-pack pack/dataset_pack.json --scale "$scale" --device "$device" \
  --precision "$precision" --long-run-gate-profile skill_release --external-eval none --train-anyway "$@" 2>&1 | tee logs/train.log
picochat run bundle --run-dir run --out bundle.tgz --logs-dir logs --strict
picochat run bundle --run-dir run --out evidence.tgz --logs-dir logs --no-include-weights
picochat run verify evidence.tgz
picochat run verify bundle.tgz --ask 50 --ask-seed 1
picochat export hf --checkpoint run/sft/checkpoint --tokenizer run/tokenizer.json --out-dir export --model-name "picochat-$scale" \
  --license other --dataset-summary "Local text." --eval-summary "See the attached evidence."
picochat run show --run-dir run
