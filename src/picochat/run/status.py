"""The state of a run, for `picochat run status`."""

from __future__ import annotations

import time
from shlex import quote

from picochat.core.journal import read_journal
from picochat.present.values import short_digest
from picochat.run.folder import RunDir
from picochat.run.graph import ARTIFACTS
from picochat.train.metrics import standing_words


def status_lines(run: RunDir) -> list[str]:
    """A line for each artifact (built, stale, begun or missing), then the next command.

    An artifact is stale if an input that it was made from is not there any more. The line of a
    stage in training shows its progress.
    """
    lines: list[str] = []
    standing: dict[str, str] = {}
    for spec in ARTIFACTS:
        kind, place = spec.kind, run.place(spec.kind)
        if run.has(kind):
            artifact = run.artifact(kind)
            inputs = artifact.manifest.inputs
            others = [name for name in spec.inputs if inputs.get(name) != standing.get(name)]
            why = f" (made from another {', '.join(others)})" if others else ""
            state = "stale" if others else "built"
            lines.append(f"{kind:14} {state}    {short_digest(artifact.digest)}  {place}{why}")
            standing[kind] = "" if others else artifact.digest
        elif place.with_name(f"{place.name}.work").exists():
            rows = read_journal(run.metrics(kind)) if kind in ("base", "sft") else []
            lines.append(f"{kind:14} begun    {standing_words(rows, time.time())}".rstrip())
        else:
            lines.append(f"{kind:14} missing")
    if all(standing.get(spec.kind) for spec in ARTIFACTS):
        return [*lines, f"next: picochat run show {quote(str(run.root))}"]
    return [*lines, f"next: the same `{run.command}` goes on"]
