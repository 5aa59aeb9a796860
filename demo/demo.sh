#!/usr/bin/env bash
# Runs the commands of the runbook, in its order, at the scale `tiny` on this machine's CPU.
# Everything is written below demo/out (or $1). If it is interrupted, run the same command again: it
# continues and ends with the same digests.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
out="${1:-$here/out}"
mkdir -p "$out/logs" "$out/runs"
cd "$out"
export PICOCHAT_HOME="$out/cache" PYTHONUNBUFFERED=1
started=$SECONDS
run=runs/tiny-wiki-v1

step() { printf '\n== %s  (%ds since the start)\n' "$1" "$((SECONDS - started))" >&2; }
# Exit code 3 means that a check failed. The verdict is the result, so the demo continues with it.
or_check_failed() { "$@" || { code=$?; [ "$code" -eq 3 ] || return "$code"; }; }

step "0 of 9  text: real prose, its licence beside it"
python "$here/fetch_corpus.py" source

step "1 of 9  sanity: does this machine train right, and how fast"
picochat sanity preh100 --out-dir runs/tiny-sanity-v1 --device cpu --precision float32 --capacity-scale tiny \
  2>&1 | tee logs/sanity-tiny.log

step "2 of 9  import: parquet becomes documents"
picochat data hf-import --dataset source --split train --text-column text \
  --out runs/tiny-sources/wiki/corpus.txt \
  --documents-dir runs/tiny-sources/wiki/documents \
  --report runs/tiny-sources/wiki/hf_import_report.json \
  --max-rows 20000 --min-chars 100 --document-shard-rows 1000 \
  2>&1 | tee logs/import-wiki.log

step "3 of 9  pack: what is trained on"
mkdir -p runs/tiny-pack-v1
cat > runs/tiny-pack-v1/dataset_pack.json <<'JSON'
{
  "name": "tiny-wiki-v1",
  "description": "Lead sections of Wikipedia's vital articles, for the demo.",
  "corpus": {"recipe": "corpus_recipe.json"},
  "chat": "chat.jsonl",
  "eval": "eval.jsonl"
}
JSON
cat > runs/tiny-pack-v1/corpus_recipe.json <<'JSON'
{
  "name": "tiny-wiki-v1",
  "description": "One source, imported into local document shards.",
  "sources": [{"path": "../tiny-sources/wiki/documents", "label": "wiki"}],
  "exclude": ["**/.DS_Store", "**/.git/**", "**/__pycache__/**"]
}
JSON
touch runs/tiny-pack-v1/chat.jsonl runs/tiny-pack-v1/eval.jsonl
picochat data preview --dataset-pack runs/tiny-pack-v1/dataset_pack.json --scale tiny 2>&1 | tee logs/preview.log

step "4 of 9  skill rows: what is asked and what is answered"
picochat data task-pack --dataset-pack runs/tiny-pack-v1/dataset_pack.json --profile release_skills \
  --sft-rows 2800 --eval-rows 360 --skill-answer-style scratchpad --source offline --force \
  2>&1 | tee logs/task-pack.log

step "5 of 9  preflight: is it worth training on this"
or_check_failed picochat run tiny --out-dir "$run" --dataset-pack runs/tiny-pack-v1/dataset_pack.json --scale tiny \
  --long-run-gate-profile skill_release --set gate.license=cc-by-sa-4.0 --preflight-only \
  2>&1 | tee logs/preflight.log

step "6 of 9  the run: tokenizer, base model, chat model, scores, verdict"
or_check_failed picochat run tiny --out-dir "$run" --dataset-pack runs/tiny-pack-v1/dataset_pack.json --scale tiny \
  --long-run-gate-profile skill_release --set gate.license=cc-by-sa-4.0 \
  2>&1 | tee logs/train.log

step "7 of 9  bundle: the evidence, complete or refused"
picochat run bundle --run-dir "$run" --out tiny-wiki-v1.tgz --logs-dir logs --strict

step "8 of 9  verify: what a stranger would do with it"
picochat run verify tiny-wiki-v1.tgz

step "9 of 9  export: a folder that transformers loads"
picochat export hf --checkpoint "$run/sft/checkpoint" --tokenizer "$run/tokenizer.json" \
  --out-dir exports/picochat-tiny-wiki-v1 --model-name picochat-tiny-wiki-v1 --license cc-by-sa-4.0 \
  --dataset-summary "Lead sections of Wikipedia's vital articles (CC BY-SA 4.0), about 5 MB." \
  --eval-summary "See the attached evidence."

printf '\n'
picochat run show "$run"
cat <<TEXT

The demo took $((SECONDS - started)) seconds. All of it lies in $out:
  report      $run/report.html    (open it in a browser)
  evidence    tiny-wiki-v1.tgz    (picochat run verify tiny-wiki-v1.tgz)
  model       exports/picochat-tiny-wiki-v1
  logs        logs/
The verdict "blocked" is expected for a model this small. picochat itself then exits with 3. The evidence is
complete in both cases.
TEXT
