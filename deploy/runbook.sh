#!/usr/bin/env bash
# The commands of docs/runbook.md in their order, for machines that nobody watches:   bash deploy/runbook.sh [SCALE] [GPUS]
# Every command may be repeated: what stands is kept, and what was stopped goes on. So after a crash or a preemption the same
# line finishes the work. Stops at the first command that fails; a gate that says no is bundled, then ends this with its code.
# Does not push: read the verdict first, then take the last command of the runbook.
set -eo pipefail

scale=${1:-h100-100m}
gpus=${2:-1}
run=runs/$scale-smollm-public-v1
pack=runs/smollm-100m-pack-v1
rows=128 # sequences on one GPU, for the capacity test
[ "$scale" = h200-1b-ddp8 ] && rows=8
price=(${PICOCHAT_USD:+--gpu-hour-usd "$PICOCHAT_USD"})
several=()
if [ "$gpus" -gt 1 ]; then
  several=(torchrun --standalone --nproc-per-node "$gpus" --no-python)
fi
export PYTHONUNBUFFERED=1 TORCH_ELASTIC_SHUTDOWN_TIMEOUT=300
mkdir -p logs exports "$pack"

# A scheduler signals every process of a job: the command saves and ends, and neither this shell nor its log may end before it.
trap : TERM
log_to() {
  (trap '' TERM INT && exec tee -a "$1")
}

picochat sanity preh100 \
  --out-dir "runs/$scale-sanity-v1" \
  --device cuda \
  --precision bf16 \
  --matmul-precision high \
  --attn-backend flash \
  --include-compile \
  --capacity-scale "$scale" \
  --capacity-batch-size "$rows" \
  2>&1 | log_to "logs/sanity-$scale.log"

# source, rows, shortest document: raise the rows where the preflight finds the pack too small for the scale
while read -r source max_rows min_chars; do
  picochat data hf-import \
    --dataset HuggingFaceTB/smollm-corpus \
    --config "$source" \
    --split train \
    --text-column text \
    --out "runs/smollm-100m-sources/$source/corpus.txt" \
    --documents-dir "runs/smollm-100m-sources/$source/documents" \
    --report "runs/smollm-100m-sources/$source/hf_import_report.json" \
    --max-rows "$max_rows" \
    --min-chars "$min_chars" \
    --document-shard-rows 1000 \
    2>&1 | log_to "logs/import-smollm-$source.log"
done <<'SOURCES'
fineweb-edu-dedup 800000 200
cosmopedia-v2 200000 300
SOURCES

cat > "$pack/dataset_pack.json" <<'JSON'
{
  "name": "smollm-100m-public-v1",
  "description": "Bounded SmolLM-Corpus pack for the Picochat 100M public proof run.",
  "corpus": {"recipe": "corpus_recipe.json"},
  "chat": "chat.jsonl",
  "eval": "eval.jsonl"
}
JSON
cat > "$pack/corpus_recipe.json" <<'JSON'
{
  "name": "smollm-100m-public-v1",
  "description": "FineWeb-Edu-Dedup plus Cosmopedia v2, imported into local document shards.",
  "sources": [
    {"path": "../smollm-100m-sources/fineweb-edu-dedup/documents", "label": "fineweb-edu-dedup"},
    {"path": "../smollm-100m-sources/cosmopedia-v2/documents", "label": "cosmopedia-v2"}
  ],
  "exclude": ["**/.DS_Store", "**/.git/**", "**/__pycache__/**"]
}
JSON
touch "$pack/chat.jsonl" "$pack/eval.jsonl"
picochat data preview \
  --dataset-pack "$pack/dataset_pack.json" \
  2>&1 | log_to logs/preview-smollm-100m-pack-v1.log

picochat data task-pack \
  --dataset-pack "$pack/dataset_pack.json" \
  --profile release_skills \
  --sft-rows 2800 \
  --eval-rows 700 \
  --skill-answer-style scratchpad \
  --source offline \
  --force \
  2>&1 | log_to logs/task-pack-smollm-100m-release-skills.log

"${several[@]}" picochat run tiny \
  --out-dir "$run" \
  --dataset-pack "$pack/dataset_pack.json" \
  --scale "$scale" \
  --device cuda \
  --precision bf16 \
  --matmul-precision high \
  --attn-backend flash \
  --long-run-gate-profile skill_release \
  "${price[@]}" \
  --preflight-only \
  2>&1 | log_to "logs/preflight-$scale.log"

"${several[@]}" picochat run tiny \
  --out-dir "runs/$scale-smollm-public-dryrun-v1" \
  --dataset-pack "$pack/dataset_pack.json" \
  --scale "$scale" \
  --device cuda \
  --precision bf16 \
  --matmul-precision high \
  --attn-backend flash \
  --base-steps 100 \
  --sft-steps 1 \
  --long-run-gate-profile research \
  2>&1 | log_to "logs/dryrun-$scale.log"

verdict=0
"${several[@]}" picochat run tiny \
  --out-dir "$run" \
  --dataset-pack "$pack/dataset_pack.json" \
  --scale "$scale" \
  --device cuda \
  --precision bf16 \
  --matmul-precision high \
  --attn-backend flash \
  --long-run-gate-profile skill_release \
  "${price[@]}" \
  2>&1 | log_to "logs/train-$scale.log" || verdict=$?

# A no of the gate is evidence too; a run that is not complete is refused here, by name of what is missing.
picochat run bundle \
  --run-dir "$run" \
  --out "exports/$scale-smollm-public-v1.tgz" \
  --logs-dir logs \
  --strict
picochat run verify "exports/$scale-smollm-public-v1.tgz"
if [ "$verdict" -ne 0 ]; then
  exit "$verdict"
fi

picochat export hf \
  --checkpoint "$run/sft/checkpoint" \
  --tokenizer "$run/tokenizer.json" \
  --out-dir "exports/picochat-$scale-smollm-public-v1" \
  --model-name "picochat-$scale-smollm-public-v1" \
  --license mit \
  --dataset-summary "Bounded HuggingFaceTB/smollm-corpus fineweb-edu-dedup + cosmopedia-v2 pack." \
  --eval-summary "See attached release evidence."
picochat export verify "exports/picochat-$scale-smollm-public-v1"
