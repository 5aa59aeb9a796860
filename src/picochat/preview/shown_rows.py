"""What a preview says of a pack's SFT and eval rows: their forms, rules, and some conversations.

The files are read by the same functions as in a run, so a file that a run would refuse is refused
here. A pack is also previewed before it has rows: a file that is absent or empty is no error.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import cast

from picochat.core.progress import say
from picochat.core.publish import Artifact, publish
from picochat.data.pack import TASK_PACK, LoadedPack
from picochat.evals.trivial import count_in, trivial_facts
from picochat.facts import RowsFacts, RowsRead, TrivialFacts, facts_of
from picochat.gate.details import trivial_text
from picochat.present.printable import printable
from picochat.preview.preview_record import ConversationPart, RowsPreview
from picochat.preview.text_sample import SourceSample
from picochat.skills.prepare import assistant_turns, prepare_rows
from picochat.skills.row_files import RowFile, read_eval_rows, read_sft_rows
from picochat.skills.task_rows import EvalRow, SftRow, scored_by
from picochat.tokens.chat_format import row_messages

SHOWN_CONVERSATIONS = 5
SHOWN_CHARACTERS = 2_000
SHOWN_KEYS = 5


def preview_rows(pack: LoadedPack, seed: int) -> tuple[RowsPreview, RowsPreview, RowsFacts | None]:
    """(SFT rows, eval rows, the facts that a run would state of both, None without both files).

    Raises BadInput where a file has rows that cannot be used.
    """
    sft = read_sft_rows(pack.chat_path) if pack.chat_path and has_rows(pack.chat_path) else None
    evals = read_eval_rows(pack.eval_path) if pack.eval_path and has_rows(pack.eval_path) else None
    return (
        _sft(pack, sft) if sft else _none(pack),
        _evals(pack, evals) if evals else _none(pack),
        _facts(pack, seed) if sft and evals else None,
    )


def preview_trivial(pack: LoadedPack, samples: Sequence[SourceSample]) -> TrivialFacts:
    """What trivial answerers get right of the pack's eval rows; the text sample is their corpus."""
    assert pack.chat_path and pack.eval_path, "a pack with both files"
    say("answering the eval rows without understanding them")
    sft, evals = read_sft_rows(pack.chat_path).rows, read_eval_rows(pack.eval_path).rows
    texts = (text for sample in samples for text in sample.texts)
    return trivial_facts(sft, evals, count_in(texts, sft, evals))


def trivial_lines(trivial: TrivialFacts) -> list[str]:
    """The best trivial answer of each skill."""
    return [
        f"{skill}: {trivial_text(scores[0])}" for skill, scores in trivial.skills.items() if scores
    ]


def has_rows(path: Path) -> bool:
    """Whether a file of rows holds more than blank lines."""
    with path.open("rb") as stream:
        return any(line.strip() for line in stream)


def _none(pack: LoadedPack) -> RowsPreview:
    state = f"none yet: {TASK_PACK.format(pack=quote(str(pack.path)))}"
    return RowsPreview(state=state, rows=0, details=[], conversations=[])


def _sft(pack: LoadedPack, found: RowFile[SftRow]) -> RowsPreview:
    rows = found.rows
    turns = [assistant_turns(row) for row in rows]
    mean = sum(turns) / len(turns)
    shown = sorted(
        {number * len(rows) // SHOWN_CONVERSATIONS for number in range(SHOWN_CONVERSATIONS)}
    )
    return RowsPreview(
        state=_state(pack.chat_path, len(rows)),
        rows=len(rows),
        details=[
            f"{_counts(found.read.forms)}; {mean:.1f} turns of the assistant a row,"
            f" {max(turns)} at most",
            *_left(found.read),
        ],
        conversations=[_conversation(rows[number]) for number in shown],
    )


def _evals(pack: LoadedPack, found: RowFile[EvalRow]) -> RowsPreview:
    rules = Counter(scored_by(row) for row in found.rows)
    return RowsPreview(
        state=_state(pack.eval_path, len(found.rows)),
        rows=len(found.rows),
        details=[
            f"{_counts(found.read.forms)}; scored by {_counts(dict(sorted(rules.items())))}",
            *_left(found.read),
        ],
        conversations=[],
    )


def _state(path: Path | None, rows: int) -> str:
    return f"{rows:,} in {path.name if path else ''}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{printable(name)} {count:,}" for name, count in counts.items())


def _left(read: RowsRead) -> list[str]:
    """What was left out of the rows, and which keys are not read."""
    lines = [
        f"left out: {left.rows:,} ({printable(reason)}), the first on line {left.first_line:,}"
        for reason, left in read.left_out.items()
    ]
    if read.dropped_keys:
        by_count = sorted(read.dropped_keys.items(), key=lambda item: (-item[1], item[0]))
        named = ", ".join(
            f"{printable(key)} ({count:,} rows)" for key, count in by_count[:SHOWN_KEYS]
        )
        more = len(by_count) - SHOWN_KEYS
        lines.append(f"keys that are not read: {named}{f' and {more} more' if more > 0 else ''}")
    return lines


def _conversation(row: SftRow) -> list[ConversationPart]:
    return [
        ConversationPart(
            role=message.role,
            text=printable(message.content[:SHOWN_CHARACTERS]),
            trained=message.role == "assistant",
        )
        for message in row_messages(row.model_dump())
    ]


def _facts(pack: LoadedPack, seed: int) -> RowsFacts:
    with tempfile.TemporaryDirectory(prefix="picochat-preview-") as folder:
        with publish(Path(folder) / "rows", "rows", "preview", {}) as staging:
            prepare_rows(pack, seed, staging)
        return facts_of(cast("Artifact", staging.artifact), RowsFacts)
