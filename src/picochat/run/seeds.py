"""One recipe with several training seeds: `run tiny --seeds N`.

A seeds folder holds a run folder for each seed, and seeds.json, seeds.md and seeds.svg about all of
them. The runs share everything that is made before training. Each one is an ordinary run, with its
own gate, bundle and checkpoint. The same command goes on where it stopped. Chooses no seed: a claim
about a recipe is about all of its seeds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shlex import quote

from picochat.core.errors import BadInput, WrongUsage
from picochat.core.progress import say
from picochat.core.publish import Artifact, exclusive
from picochat.core.records import read_record, write_atomic, write_json
from picochat.present.terminal import columns
from picochat.report.spread import Spread, curves_chart, markdown_page, spread_of, table
from picochat.run.folder import SEEDS, RunDir, seed_runs
from picochat.run.request import RunRequest, open_request, pack_of
from picochat.run.runner import RunVerdict, by_main_process, run_one
from picochat.run.status import status_lines

CHART = "seeds.svg"
PAGE = "seeds.md"
SETTING = "training_seed"


def run_seeds(request: RunRequest, seeds: int) -> RunVerdict:
    """Run a pack with `seeds` training seeds that follow each other, the configured one first.

    The verdict is blocked (exit code 3) unless no seed's gate blocks. Where a preflight stops a
    run, or was all that was asked for, it is that run's verdict.
    """
    return by_main_process(lambda: _run_seeds(request, seeds))


def _run_seeds(request: RunRequest, seeds: int) -> RunVerdict:
    root = request.out_dir
    if RunDir(root).config.exists():
        raise WrongUsage(
            f"{root} is the run of one seed", fix="choose another --out-dir for several seeds"
        )
    request = replace(request, dataset_pack=pack_of(request), inputs=None)
    first = open_request(request)[1].config.training_seed
    members = {f"seed-{seed}": seed for seed in range(first, first + seeds)}
    root.mkdir(parents=True, exist_ok=True)
    with exclusive(root / ".lock", f"folder {root}"):
        write_json(root / SEEDS, spread_of(list(members), _finished(root, list(members))))
        like: RunDir | None = None
        for number, (name, seed) in enumerate(members.items(), 1):
            say(f"{name}: training seed {seed}, {number} of {seeds}")
            run = RunDir(root / name)
            verdict = run_one(_with_seed(request, run.root, seed), like=like)
            if request.preflight_only:
                more = f"the preflight is of one seed; {seeds} seeds train {seeds} times as long"
                return RunVerdict([*verdict.lines, more], verdict.exit_code)
            if not run.has("summary"):
                return verdict
            like = like or run
            spread = write_spread(root, list(members))
        where = [f"seeds: {root / PAGE}", f"chart: {root / CHART}"]
        blocked = "blocked" in spread.verdicts
        return RunVerdict([*spread_lines(spread), *where], 3 if blocked else 0)


def _with_seed(request: RunRequest, place: Path, seed: int) -> RunRequest:
    """The request of one seed's run. It replaces a training seed that the user gave."""
    others = [text for text in request.settings if text.partition("=")[0].strip() != SETTING]
    flags = {key: value for key, value in request.flags.items() if key != SETTING}
    return replace(request, out_dir=place, flags=flags, settings=[*others, f"{SETTING}={seed}"])


def write_spread(root: Path, names: list[str]) -> Spread:
    """Write seeds.json and its pages from the runs that have a verdict now."""
    finished = _finished(root, names)
    spread = spread_of(names, finished)
    write_json(root / SEEDS, spread)
    write_atomic(root / CHART, curves_chart(finished).encode())
    write_atomic(root / PAGE, markdown_page(spread, CHART).encode())
    return spread


def _finished(root: Path, names: list[str]) -> dict[str, dict[str, Artifact]]:
    """The artifacts of each run that has a verdict now."""
    runs = {name: RunDir(root / name) for name in names}
    return {name: run.artifacts() for name, run in runs.items() if run.has("summary")}


def spread_lines(spread: Spread) -> list[str]:
    """The table of all seeds as lines of text."""
    rows = table(spread)
    return columns(rows, right=range(1, len(rows[0])))


def seeds_show_lines(root: Path) -> list[str]:
    """The screen of `run show` for a seeds folder. Raises BadInput before the first verdict."""
    spread = read_record(Spread, root / SEEDS, "list of runs")
    if not spread.finished:
        raise BadInput(
            f"no run in {root} has a verdict yet",
            fix=f"the same `{seed_runs(root)[0].command}` goes on",
        )
    return [*spread_lines(spread), "", f"page: {root / PAGE}", f"chart: {root / CHART}"]


def seeds_status_lines(root: Path) -> list[str]:
    """The state of each seed's run, as `run status` shows one run."""
    lines: list[str] = []
    for run in seed_runs(root):
        if not run.config.exists():
            lines += [f"{run.root}: not begun", ""]
            continue
        *state, _ = status_lines(run)
        lines += [f"{run.root}:", *(f"  {line}" for line in state), ""]
    return [*lines, f"next: picochat run show {quote(str(root))}"]
