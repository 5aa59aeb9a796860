"""The words, symbols and orders that terminal, Markdown and HTML share.

There is a table for statuses of findings, verdicts, stages of training, and the rates that belong
to no skill. The names of skills, checks and rules are shown as they are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StatusLabel:
    """How the status of a finding is shown. `word` is the first word of a terminal line."""

    word: str
    colour: str  # as rich names it
    symbol: str
    verb: str  # of a forecast: "this check ..."


@dataclass(frozen=True)
class VerdictLabel:
    """How a verdict of the release gate is shown."""

    symbol: str
    sentence: str


# In the order of every table of findings: the reasons to stop come first.
STATUSES = {
    "block": StatusLabel("BLOCK", "bold red", "✕", "blocks"),
    "unmeasured": StatusLabel("none", "magenta", "?", "not measured"),
    "warn": StatusLabel("WARN", "yellow", "!", "warns"),
    "pass": StatusLabel("pass", "green", "✓", "passes"),
}
WORST_FIRST = tuple(STATUSES)
COUNTED = ("pass", "warn", "block", "unmeasured")  # the order in a line of counts

VERDICTS = {
    "approved": VerdictLabel(
        "✓", "The release gate approved this model: every rule of its profile passes."
    ),
    "warn": VerdictLabel(
        "!", "The release gate found nothing that blocks, but not every rule passes."
    ),
    "blocked": VerdictLabel(
        "✕", "The release gate blocked this model: do not claim what the blocking rules speak of."
    ),
    "unfinished": VerdictLabel("…", "This run has no verdict: the release gate was not reached."),
}
VERDICT_COLOURS = {"approved": "bold green", "ready": "bold green", "blocked": "bold red"}

STAGES = {"base": "base", "sft": "fine-tuning"}

# Rates that belong to no skill, by the name of their fact, in the order of the pages.
OTHER_RATES = {
    "sft_fit": "SFT rows answered, of those trained on",
    "sft_held_out_fit": "SFT rows answered, of those held out",
    "refusal": "unsafe or unanswerable prompts, refused",
    "over_refusal": "benign look-alikes, answered",
    "choice_listed": "choice with the options listed, answered",
    "prompt_echo": "replies that echo the prompt",
    "unsupported_claims": "unanswerable prompts, answered as fact",
    "memorized": "training text continued word for word",
}
