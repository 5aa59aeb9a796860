"""The task pack: SFT and eval rows with a page about them, written beside the dataset pack.

The same request gives the same bytes. Rows come from the data files and rules of this project
(`mixture.py`); `source="hf"` adds SFT rows of public sets at revisions that the page states. With
`source="offline"` nothing is downloaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from picochat.core.errors import BadInput, Problem, WrongUsage, did_you_mean
from picochat.core.records import canonical_json, digest_bytes, write_atomic
from picochat.skills.mixture import make_rows, weights_of, weights_text
from picochat.skills.row_files import read_eval_rows, read_sft_rows
from picochat.skills.shared_items import EvalItems, item_of, normalized_prompt
from picochat.skills.skill import PROFILES, AnswerStyle, Profile, seeded
from picochat.skills.skill_table import SKILLS
from picochat.skills.task_rows import EvalRow, SftRow, row_json

if TYPE_CHECKING:  # importing it loads the Hub's client, which offline packs do not need
    from picochat.skills.public import PublicCount

SOURCES = ("offline", "hf")
PUBLIC_SHARE = 0.25  # of sft_rows, on top of them, where public_rows says nothing
FEWEST_SFT_ROWS = 32
FEWEST_EVAL_ROWS = 16


@dataclass(frozen=True)
class TaskPackRequest:
    """What the user asked for.

    Names are checked by `make_task_pack`, all of them at once. chat_out, eval_out: the files of the
    rows; None: files named for the profile in `out_dir`. public_rows: rows of `source="hf"`, on top
    of `sft_rows`; None: a quarter of `sft_rows`. skill_weights: `math=.3,spelling=.2`, in place of
    the profile's. force: replace other rows that stand there. add: put the pack's own rows into the
    same files. promote: name the rows in the dataset pack.
    """

    pack_path: Path
    out_dir: Path
    sft_rows: int
    eval_rows: int
    profile: str
    answer_style: str
    source: str
    seed: int
    chat_out: Path | None = None
    eval_out: Path | None = None
    public_rows: int | None = None
    skill_weights: str | None = None
    force: bool = False
    add: bool = False
    promote: bool = True


@dataclass(frozen=True)
class SkillCount:
    """What one skill gave: rows, distinct items, and the eval rows of each level."""

    skill: str
    sft_rows: int
    sft_items: int
    eval_rows: int
    eval_items: int
    eval_levels: dict[str, int]


@dataclass(frozen=True)
class TaskPackReport:
    profile: str
    weights: dict[str, float]
    counts: tuple[SkillCount, ...]
    public: tuple[PublicCount, ...]
    repeated_prompts: int
    shared_items: int
    chat: Path
    eval: Path
    page: Path
    promoted: bool
    kept: tuple[Path, ...]
    answered: int
    replaced: tuple[Path, ...]

    def lines(self) -> list[str]:
        """A small table, then where the files are."""
        return [
            *table_lines(self.counts),
            *(
                f"{each.name:<10}{each.rows:>10}  from {each.dataset} at {each.revision[:12]}"
                for each in self.public
            ),
            f"weights: {weights_text(self.weights)}",
            (
                f"SFT prompts that stand twice: {self.repeated_prompts}; eval items that the SFT"
                f" rows contain: {self.shared_items}"
            ),
            f"SFT rows   {self.chat}",
            f"eval rows  {self.eval}",
            f"about them {self.page}",
            (
                "the pack now names these rows"
                if self.promoted
                else "the pack was left as it is (--no-promote)"
            ),
            *(f"with the pack's own rows of {path}" for path in self.kept),
            *(
                [f"left out: {self.answered} eval rows that the pack's own SFT rows answer"]
                if self.answered
                else []
            ),
            *(f"the pack no longer names {path}; the file stays" for path in self.replaced),
        ]


def make_task_pack(request: TaskPackRequest) -> TaskPackReport:
    """Write the SFT rows, the eval rows and a page about them; name them in the pack if asked to.

    Raises WrongUsage for a request that cannot be met, and for other rows that are already there
    without `force`; HubProblem where a public set cannot be had.
    """
    _check(request)
    profile, style = cast("Profile", request.profile), cast("AnswerStyle", request.answer_style)
    weights = weights_of(profile, request.skill_weights)
    given = weights if request.skill_weights else None
    sft, evals = make_rows(profile, request.sft_rows, request.eval_rows, style, request.seed, given)
    public: tuple[PublicCount, ...] = ()
    if request.source == "hf":
        from picochat.skills.public import read_public_rows

        asked = request.public_rows
        count = round(PUBLIC_SHARE * request.sft_rows) if asked is None else asked
        found, public = read_public_rows(count, request.seed, EvalItems(evals))
        sft += found
        seeded("mixture with public rows", request.seed).shuffle(sft)
    folder = request.out_dir
    chat = request.chat_out or folder / f"chat_task_mixture_{profile}.jsonl"
    eval_path = request.eval_out or folder / f"eval_task_mixture_{profile}.jsonl"
    page = folder / f"task_mixture_{profile}.md"
    own = _own_rows(request, (chat, eval_path))
    kept, replaced = (own, {}) if request.add else ({}, own)
    answered: set[str] = set()
    if "chat" in kept:
        own_sft = read_sft_rows(kept["chat"]).rows
        answered = EvalItems(evals).in_rows(own_sft)
        evals = [row for row in evals if item_of(row) not in answered]
        sft = [*own_sft, *sft]
    if "eval" in kept:
        evals = [*read_eval_rows(kept["eval"]).rows, *evals]
    files = {chat: _jsonl(sft), eval_path: _jsonl(evals)}
    digests = [digest_bytes(data) for data in files.values()]
    counts = count_skills(sft, evals)
    files[page] = page_text(request, weights, counts, public, sft, evals, digests).encode()
    _refuse_overwriting(files, tuple(replaced.values()), request.force)
    for path, data in files.items():
        write_atomic(path, data)
    if request.promote:
        from picochat.data.pack import promote as promote_rows

        promote_rows(request.pack_path, chat, eval_path, kept, [each.source() for each in public])
    repeated = len(sft) - len({normalized_prompt(row) for row in sft})
    shared = len(EvalItems(evals).in_rows(sft))
    return TaskPackReport(
        profile,
        weights,
        counts,
        public,
        repeated,
        shared,
        chat,
        eval_path,
        page,
        request.promote,
        tuple(kept.values()),
        len(answered),
        tuple(replaced.values()),
    )


def _check(request: TaskPackRequest) -> None:
    problems: list[Problem] = []
    for value, name, known in (
        (request.profile, "profile", PROFILES),
        (request.answer_style, "skill-answer-style", get_args(AnswerStyle)),
        (request.source, "source", SOURCES),
    ):
        if value not in known:
            hint = did_you_mean(value, known)
            problems.append(
                Problem(f"--{name} {value}: unknown{hint}", fix=f"one of: {', '.join(known)}")
            )
    for value, name, fewest in (
        (request.sft_rows, "sft-rows", FEWEST_SFT_ROWS),
        (request.eval_rows, "eval-rows", FEWEST_EVAL_ROWS),
    ):
        if value < fewest:
            problems.append(Problem(f"--{name} {value}: at least {fewest} are needed"))
    public_rows = request.public_rows
    if public_rows is not None and (request.source != "hf" or public_rows < 1):
        problems.append(
            Problem(
                f"--public-rows {public_rows}: a number of rows of --source hf",
                fix="--source hf --public-rows 700",
            )
        )
    if problems:
        raise WrongUsage("the task pack cannot be made", problems=problems)
    pack = request.pack_path
    if not pack.is_file():
        state = "is a folder without a dataset_pack.json" if pack.is_dir() else "does not exist"
        raise BadInput(
            f"dataset pack {pack} {state}", fix="name the dataset_pack.json with --dataset-pack"
        )


def _jsonl(rows: Sequence[SftRow] | Sequence[EvalRow]) -> bytes:
    return b"".join(canonical_json(row_json(row)) + b"\n" for row in rows)


def _own_rows(request: TaskPackRequest, new: Sequence[Path]) -> dict[str, Path]:
    """Files of rows that the pack names, that this command did not make and that hold something.

    By `chat` and `eval`; none where the pack is left as it is and they are not wanted.
    """
    if not request.promote and not request.add:
        return {}
    from picochat.data.pack import own_rows_of_pack

    return {
        key: path
        for key, path in own_rows_of_pack(request.pack_path).items()
        if path.is_file()
        and path.stat().st_size
        and path.resolve() not in [each.resolve() for each in new]
    }


def _refuse_overwriting(files: dict[Path, bytes], replaced: Sequence[Path], force: bool) -> None:
    """Raise WrongUsage, unless `force`, if files with other content or a pack's own rows would go.

    Equal files and empty files may stand there.
    """
    differing = [
        path
        for path, data in files.items()
        if path.exists() and path.read_bytes() not in (b"", data)
    ]
    if (differing or replaced) and not force:
        problems = [Problem(f"{path} holds something else") for path in differing]
        problems += [Problem(f"the pack names rows of its own: {path}") for path in replaced]
        fix = (
            "--force replaces these files; --out-dir names another folder"
            if differing
            else "--add keeps them among the new rows, --force names the new rows in their place"
        )
        raise WrongUsage("rows that are there would be replaced", problems=problems, fix=fix)


# ---- the page ------------------------------------------------------------------------------------


def count_skills(sft: Sequence[SftRow], evals: Sequence[EvalRow]) -> tuple[SkillCount, ...]:
    counts: list[SkillCount] = []
    for skill in SKILLS:
        trained = [row for row in sft if row.skill == skill.name]
        asked = [row for row in evals if row.skill == skill.name]
        if not trained and not asked:
            continue
        levels = Counter(row.curriculum_stage for row in asked)
        counts.append(
            SkillCount(
                skill.name,
                len(trained),
                len({row.item for row in trained}),
                len(asked),
                len({row.item for row in asked}),
                {level: levels[level] for level in skill.levels},
            )
        )
    return tuple(counts)


def table_lines(counts: Sequence[SkillCount]) -> list[str]:
    lines = [f"{'skill':<10}{'SFT rows':>10}{'items':>8}{'eval rows':>11}{'items':>8}"]
    for row in counts:
        lines.append(
            f"{row.skill:<10}{row.sft_rows:>10}{row.sft_items:>8}"
            f"{row.eval_rows:>11}{row.eval_items:>8}"
        )
    return lines


def page_text(
    request: TaskPackRequest,
    weights: Mapping[str, float],
    counts: Sequence[SkillCount],
    public: Sequence[PublicCount],
    sft: Sequence[SftRow],
    evals: Sequence[EvalRow],
    digests: Sequence[str],
) -> str:
    """The page about the rows: how many of what, digests, and one example of each skill."""
    lines = [
        f"# Task mixture {request.profile}",
        "",
        (
            f"Seed {request.seed}, answer style {request.answer_style},"
            f" source {'hf' if public else 'offline'}. "
            f"{len(sft)} SFT rows, {len(evals)} eval rows."
        ),
        f"Weights of the skills: {weights_text(weights)}.",
        f"SFT rows sha256 {digests[0]}",
        f"Eval rows sha256 {digests[1]}",
        "",
        "| skill | SFT rows | SFT items | eval rows | eval items | eval rows of each level |",
        "|---|---|---|---|---|---|",
    ]
    for row in counts:
        levels = ", ".join(f"{level} {rows}" for level, rows in row.eval_levels.items())
        lines.append(
            f"| {row.skill} | {row.sft_rows} | {row.sft_items} | {row.eval_rows} | {row.eval_items}"
            f" | {levels} |"
        )
    lines += [
        "",
        (
            "An item is what the eval rows must not share with the SFT rows: a number pair, a word,"
            " a fact, a topic, a phrasing."
        ),
        f"Eval items that the SFT rows contain: {len(EvalItems(evals).in_rows(sft))}.",
        "",
    ]
    if public:
        lines += [
            "| public set | dataset | revision | licence | SFT rows | passed over |",
            "|---|---|---|---|---|---|",
        ]
        lines += [*(each.line() for each in public), ""]
    for row in counts:
        trained = next((entry for entry in sft if entry.skill == row.skill), None)
        asked = next((entry for entry in evals if entry.skill == row.skill), None)
        lines += [f"## {row.skill}", ""]
        if trained is not None:
            lines += ["SFT:", "", *_quoted(trained.user), ">", *_quoted(trained.assistant), ""]
        if asked is not None:
            lines += ["Eval:", "", *_quoted(asked.user), ""]
    return "\n".join(lines)


def _quoted(text: str) -> list[str]:
    return [f"> {line}  " for line in text.splitlines()]
