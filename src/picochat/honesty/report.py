"""The honesty report as a page: what was scanned, what was found, and what such a scan cannot see. Renders, decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from picochat.rundir import HonestyFacts

MOST_ROWS_SHOWN = 50
BLIND_SPOTS = (
    "a paraphrase: the same question in other words",
    "synonyms, spelling mistakes, numbers written as words",
    "a translation into another language, and languages that are written without spaces",
    "text in pictures, tables that were flattened in another order, text that the corpus does not hold any more",
    "items of fewer than 6 words whose answer does not stand within 20 words behind them",
)


def report_page(facts: HonestyFacts, report: Mapping[str, Any]) -> str:
    """Markdown, rendered from the facts alone."""
    share = 100 * facts.scanned_text_bytes / facts.corpus_text_bytes if facts.corpus_text_bytes else 0.0
    lines = [
        "# Honesty: are the eval rows in what the model learns from?",
        "",
        f"Scanned {facts.scanned_documents} documents, {facts.scanned_text_bytes} of {facts.corpus_text_bytes} bytes "
        f"({share:.1f}%), and {report['sft_rows']} SFT rows, against {facts.eval_rows} eval rows.",
        "",
        "| skill | eval rows | found in the corpus |",
        "|---|---|---|",
        *(f"| {skill} | {rows} | {facts.corpus_dirty_by_skill.get(skill, 0)} |" for skill, rows in facts.eval_by_skill.items()),
        "",
        f"Eval prompts that are SFT prompts: {facts.sft_exact_prompts}.",
        f"Largest share of one eval prompt's {report['coverage_words']}-word runs, template apart, in one SFT row: "
        f"{facts.sft_largest_coverage:.2f}.",
        f"Dirty eval rows in all: {len(facts.dirty_eval_rows)}. They stay in the eval rows; every score is given with and "
        "without them.",
        "",
        *_dirty_rows(report),
        "## What makes a row dirty",
        "",
        f"- {report['hit_words']} words in a row stand in a document or an SFT row;",
        f"- or its whole prompt does, for prompts under {report['hit_words']} words (under 6 words: with its answer behind it);",
        f"- or at least {100 * report['dirty_coverage']:.0f}% of its {report['coverage_words']}-word runs do, of four or more.",
        "",
        f"Words are compared without case, punctuation and line breaks. {report['template_runs']} runs that stand in more than "
        "three prompts of one skill are template and belong to no row.",
        f"Rows too short to look for: {len(report['rows_too_short_to_look_for'])}.",
        "",
        "## What this cannot see",
        "",
        *(f"- {spot}" for spot in BLIND_SPOTS),
        "",
    ]
    return "\n".join(lines)


def _dirty_rows(report: Mapping[str, Any]) -> list[str]:
    """A table of the dirty rows, most frequent first; hits.jsonl has the places."""
    corpus, sft = report["corpus_documents_holding"], report["sft_rows_holding"]
    dirty = sorted({*corpus, *sft, *report["sft_exact_prompts"]}, key=lambda row: (-corpus.get(row, 0), row))
    if not dirty:
        return []
    lines = ["| dirty row | documents that hold it | SFT rows that hold it |", "|---|---|---|"]
    lines += [f"| {row} | {corpus.get(row, 0)} | {sft.get(row, 0)} |" for row in dirty[:MOST_ROWS_SHOWN]]
    if len(dirty) > MOST_ROWS_SHOWN:
        lines.append(f"| and {len(dirty) - MOST_ROWS_SHOWN} more | | |")
    return [*lines, ""]
