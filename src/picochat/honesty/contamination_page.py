"""The page of the contamination scan: what was scanned and found, the fix, and the blind spots."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from picochat.facts import HonestyFacts
from picochat.honesty.items import LONGEST_WHOLE_WORDS

MOST_ROWS_SHOWN = 50
MOST_DOCUMENTS_SHOWN = 20
BLIND_SPOTS = (
    "a paraphrase: the same question in other words",
    (
        "synonyms, spelling mistakes, numbers written as words; docs/benchmarks.md says how many of"
        " each were found when planted"
    ),
    (
        "a row in parts that are all shorter than 13 words, with other text between them, unless"
        " most of its 8-word runs are left"
    ),
    "words broken by a hyphen at the end of a line, and letters with accents for those without",
    "a translation into another language",
    (
        "text in pictures, tables that were flattened in another order, text that the corpus does"
        " not hold any more"
    ),
    "items of fewer than 6 words whose answer does not stand within 20 words behind them",
)
PLAIN_ID = re.compile(r"[^\x20-\x7e]|[`|<>\\]")


def contamination_page(facts: HonestyFacts, report: Mapping[str, Any]) -> str:
    """The Markdown of report.md. It depends only on the facts and report.json."""
    percent = (
        100 * facts.scanned_text_bytes / facts.corpus_text_bytes if facts.corpus_text_bytes else 0.0
    )
    external = sum(facts.external_rows.values())
    lines = [
        "# Honesty: are the rows that measure the model in what it learns from?",
        "",
        (
            f"Scanned {facts.scanned_documents} documents, {facts.scanned_text_bytes} of"
            f" {facts.corpus_text_bytes} bytes ({percent:.1f}%), and {report['sft_rows']} SFT rows,"
            f" against {facts.eval_rows} eval rows and {external} rows of"
            f" {len(facts.external_rows)} external benchmarks."
        ),
        "",
        "| skill | eval rows | found in the corpus |",
        "|---|---|---|",
        *(
            f"| {skill} | {rows} | {facts.corpus_contaminated_by_skill.get(skill, 0)} |"
            for skill, rows in facts.eval_by_skill.items()
        ),
        "",
        *_benchmarks(facts),
        f"Eval prompts that are SFT prompts: {facts.sft_exact_prompts}.",
        (
            f"Largest fraction of one eval prompt's {report['coverage_words']}-word runs, template"
            f" apart, in one SFT row: {facts.sft_largest_coverage:.2f}."
        ),
        (
            f"Contaminated eval rows in all: {len(facts.contaminated_eval_rows)}. They stay in the"
            " eval rows; every score is given with and without them."
        ),
        "",
        *_contaminated_rows(report),
        *_remedy(report),
        "## What makes a row contaminated",
        "",
        f"- {report['hit_words']} words in a row stand in a document or an SFT row;",
        (
            f"- or its whole prompt does, where the prompt has fewer than {report['hit_words']}"
            " words or no such run of its own (under 6 words: with its answer behind it);"
        ),
        (
            f"- or at least {100 * report['contaminated_coverage']:.0f}% of its"
            f" {report['coverage_words']}-word runs do, of four or more."
        ),
        "",
        (
            "Words are compared without case, punctuation, line breaks, HTML entities and"
            " characters without a shape, letters by what they look like, whether marks inside"
            f" words were kept, dropped or made spaces. {report['template_runs']} runs"
            " that stand in more than three prompts of one skill or one benchmark are template and"
            " belong to no row."
        ),
        (
            "Rows not looked for, because they are too short, or repeat themselves for more than"
            f" {LONGEST_WHOLE_WORDS:,} words: {len(report['rows_not_looked_for'])}."
        ),
        "",
        "## What this cannot see",
        "",
        *(f"- {spot}" for spot in BLIND_SPOTS),
        "",
    ]
    return "\n".join(lines)


def _benchmarks(facts: HonestyFacts) -> list[str]:
    if not facts.external_rows:
        return []
    rows = facts.external_rows.items()
    found, anywhere = facts.external_contaminated, facts.contaminated_external_rows
    return [
        "| benchmark | rows | found in the corpus | in the corpus or the SFT rows |",
        "|---|---|---|---|",
        *(
            f"| {plain_id(name)} | {count} | {found.get(name, 0)} | {len(anywhere.get(name, []))} |"
            for name, count in rows
        ),
        "",
    ]


def _contaminated_rows(report: Mapping[str, Any]) -> list[str]:
    """A table of the contaminated rows, those in most documents first."""
    groups: list[tuple[str, Mapping[str, Any]]] = [("", report), *report["benchmarks"].items()]
    lines: list[tuple[int, str]] = []
    for name, group in groups:
        corpus, sft = group["corpus_documents_holding"], group["sft_rows_holding"]
        for row in sorted({*corpus, *sft, *group["sft_exact_prompts"]}):
            shown = plain_id(f"{name}: {row}" if name else row)
            lines.append(
                (-corpus.get(row, 0), f"| {shown} | {corpus.get(row, 0)} | {sft.get(row, 0)} |")
            )
    if not lines:
        return []
    more = len(lines) - MOST_ROWS_SHOWN
    return [
        "| contaminated row | documents that hold it | SFT rows that hold it |",
        "|---|---|---|",
        *(line for _, line in sorted(lines)[:MOST_ROWS_SHOWN]),
        *([f"| and {more} more | | |"] if more > 0 else []),
        "",
    ]


def _remedy(report: Mapping[str, Any]) -> list[str]:
    """How to leave the documents that hold rows out of the corpus."""
    documents: Sequence[str] = report["documents_to_leave_out"]
    if not documents:
        return []
    more = len(documents) - MOST_DOCUMENTS_SHOWN
    return [
        "## How to fix it",
        "",
        (
            'Leave these documents out: list them under `"exclude_documents"` in corpus_recipe.json'
            " (all are in report.json under `documents_to_leave_out`; where each row stands is in"
            " hits.jsonl), and run the same command again."
        ),
        "",
        *(f"- `{plain_id(document)}`" for document in documents[:MOST_DOCUMENTS_SHOWN]),
        *([f"- and {more} more"] if more > 0 else []),
        "",
    ]


def plain_id(id: str) -> str:
    """An id without characters that a Markdown page or a terminal would interpret."""
    return PLAIN_ID.sub("?", id)
