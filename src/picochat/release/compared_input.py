"""Reads what `run compare` is given: a run folder, a bundle, a folder of runs with other seeds, or
the results of `picochat eval`.

One reader for each kind makes the record that evals/comparison.py compares. A bundle comes from
somebody else, so it is verified first and refused where it does not hold. Of a run folder the
scores are computed again from the replies, and files that were changed are refused. Needs neither
network nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote

from picochat.config import ResolvedConfig, flatten
from picochat.core.errors import BadInput, Problem, WrongUsage
from picochat.core.publish import MANIFEST, Artifact, changed_files, open_artifact, touched_files
from picochat.core.records import read_record
from picochat.data.benchmarks.stage import read_items
from picochat.evals.compared import (
    EVAL,
    ComparedModel,
    Recipe,
    ScoredItem,
    Side,
    scored_items,
    scored_rows,
)
from picochat.evals.comparison import Comparison, compare
from picochat.evals.eval_records import EXTERNAL, read_external, read_held_out, read_replies
from picochat.evals.evaluate import facts_from, questions
from picochat.evals.recipes import is_same_recipe
from picochat.facts import CorpusFacts, HonestyFacts, facts_of
from picochat.folder_eval.evaluate_folder import BENCHMARKS, KIND, holds_results
from picochat.folder_eval.model_record import ModelRecord
from picochat.present.values import byte_quantity, count
from picochat.release.integrity import artifacts_of, chain_problems
from picochat.release.stated_files import opened_run, unpacked_bundle
from picochat.release.verify import verify_bundle
from picochat.run.folder import RunDir, holds_seeds, seed_runs
from picochat.skills.row_files import read_eval_rows

DATA_ARTIFACTS = ("corpus", "tokenizer", "exercises", "shards", "rows", "conversations")
READ = ("scores", "rows", "benchmarks", "honesty", "corpus")
"""The artifacts whose files a comparison reads."""
FINISH_FIRST = "name the bundle of a run that ended with a verdict"
WHAT_IT_TAKES = (
    "name a run folder, a bundle (.tgz), the --out-dir of `run tiny --seeds N`, or the results of"
    " `picochat eval`"
)


def compare_paths(a: Path, b: Path) -> Comparison:
    """The comparison of what lies at two paths.

    Raises WrongUsage where both name the same run, CheckFailed for a bundle that does not hold what
    it claims, and BadInput for what is not finished or of another kind.
    """
    same = {path.resolve() for path in _runs_at(a)} & {path.resolve() for path in _runs_at(b)}
    if same:
        raise WrongUsage(
            f"A and B are the same run: {min(same)}", fix="name two different runs to compare"
        )
    return compare(read_side(a), read_side(b))


def read_side(path: Path) -> Side:
    """The runs at one path, as one side of a comparison."""
    if holds_seeds(path):
        return _read_seeds(path)
    if holds_results(path):
        return Side(str(path), (_read_folder_eval(path),))
    if path.is_dir() and unpacked_bundle(path) is None:
        return Side(str(path), (read_run(RunDir(path), path),))
    verify_bundle(path)
    with opened_run(path, skip=(".safetensors", ".bin", ".npz")) as run:
        return Side(str(path), (read_run(run, path),))


def _runs_at(path: Path) -> list[Path]:
    return [run.root for run in seed_runs(path)] if holds_seeds(path) else [path]


def _read_seeds(folder: Path) -> Side:
    """The runs of a seeds folder. Raises BadInput where they differ in more than the seed."""
    models = [read_run(RunDir(root), root) for root in dict.fromkeys(_runs_at(folder))]
    first = models[0].recipe
    others = [
        model.name
        for model in models[1:]
        if first and model.recipe and not is_same_recipe(first, model.recipe)
    ]
    if others:
        raise BadInput(
            f"the runs of {folder} differ in more than the seed: {others[0]} from {models[0].name}",
            fix=(
                "compare these two by themselves, which names what differs: picochat run compare"
                f" {quote(str(folder / models[0].name))} {quote(str(folder / others[0]))}"
            ),
        )
    return Side(str(folder), tuple(models))


def _read_folder_eval(folder: Path) -> ComparedModel:
    """A public model, from what `picochat eval` left. Its recipe and its text are not known."""
    artifact = open_artifact(folder, KIND)
    if changed := changed_files(folder, artifact.manifest):
        raise BadInput(
            f"{folder} was changed since it was made: {', '.join(changed[:3])}",
            fix="ask the model again, with another --out-dir",
        )
    rows = {row.id: row for row in read_eval_rows(artifact.path("eval.jsonl")).rows}
    items: dict[str, dict[str, ScoredItem]] = {}
    if (folder / EXTERNAL).exists():
        benchmarks = open_artifact(folder / BENCHMARKS, "benchmarks")
        items = scored_items(read_items(benchmarks), read_external(folder))
    return ComparedModel(
        name=read_record(ModelRecord, artifact.path("model.json")).name,
        rows=scored_rows(rows, read_replies(folder)) or None,
        items=items or None,
    )


def read_run(run: RunDir, path: Path) -> ComparedModel:
    """The model of a run folder or of an unpacked bundle. path: what the user named.

    Raises BadInput that names what is missing, or was changed since it was made.
    """
    if not run.config.exists():
        raise BadInput(f"{path} is no run: it has no run.json", fix=WHAT_IT_TAKES)
    if not run.has("scores"):
        raise BadInput(
            f"{path} is not finished: it has no scores",
            fix=run.again if path.resolve() == run.root.resolve() else FINISH_FIRST,
        )
    artifacts, problems = artifacts_of(run)
    _require_whole(run, artifacts, [*problems, *chain_problems(artifacts)])
    scores = artifacts["scores"]
    honesty = facts_of(artifacts["honesty"], HonestyFacts)
    contaminated = {EVAL: frozenset(honesty.contaminated_eval_rows)} | {
        name: frozenset(ids) for name, ids in honesty.contaminated_external_rows.items()
    }
    rows = {row.id: row for name, row in questions(artifacts["rows"], None) if name == EVAL}
    return ComparedModel(
        name=path.resolve().name,
        rows=scored_rows(rows, read_replies(scores.place)) or None,
        items=scored_items(read_items(artifacts["benchmarks"]), read_external(scores.place))
        or None,
        documents=read_held_out(scores.place) or None,
        contaminated=contaminated,
        recipe=_recipe(run, artifacts),
    )


def _require_whole(run: RunDir, artifacts: Mapping[str, Artifact], problems: list[Problem]) -> None:
    """Raise BadInput where the scores are not those of the files, or of another checkpoint."""
    for kind in READ:
        if kind not in artifacts:
            problems.append(Problem(f"{kind}: is missing"))
            continue
        problems += [
            Problem(f"{kind}: {name} is not as it was made")
            for name in touched_files(artifacts[kind])
            if name == MANIFEST
            or (name in artifacts[kind].manifest.files and artifacts[kind].path(name).exists())
        ]
    if not problems:
        problems += _scores_problems(artifacts)
    if problems:
        raise BadInput(f"{run.root} is not one finished run", problems=problems, fix=run.again)


def _scores_problems(artifacts: Mapping[str, Artifact]) -> list[Problem]:
    """Whether the scores follow from the files, which another version may have written."""
    scores = artifacts["scores"]
    try:
        again = facts_from(scores.place, artifacts).model_dump(mode="json")
    except BadInput as error:
        return [Problem(error.what), *error.problems]
    return [] if again == scores.facts else [Problem("scores: differ from what the replies give")]


def _recipe(run: RunDir, artifacts: Mapping[str, Artifact]) -> Recipe:
    """Settings, data and software of a run."""
    corpus = facts_of(artifacts["corpus"], CorpusFacts)
    machine = run.machine_record()
    versions = dict(machine.versions) if machine else {}
    versions.pop("picochat", None)
    devices = (machine.gpus or [machine.cpu]) if machine else ["unknown"]
    return Recipe(
        settings=flatten(read_record(ResolvedConfig, run.config, "configuration").config),
        data={
            "text": artifacts["corpus"].manifest.inputs.get("pack", ""),
            "chat and eval rows": artifacts["rows"].manifest.inputs.get("pack", ""),
            "benchmarks": artifacts["benchmarks"].digest,
        },
        made={kind: artifacts[kind].digest for kind in DATA_ARTIFACTS if kind in artifacts},
        text=f"{count(corpus.documents)} documents, {byte_quantity(corpus.text_bytes)}",
        picochat=machine.picochat if machine else "unknown",
        machine=", ".join([*devices, *(f"{name} {each}" for name, each in versions.items())]),
    )
