"""`picochat run ...`: the commands that run a pack, bundle and verify it, and show its state.

There is no logic here: each command calls functions and prints what they return.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from picochat.cli.options import (
    IdentityOption,
    MessageOption,
    PrivateOption,
    ProviderOption,
    PublicKeyOption,
    PushOption,
    RepositoryOption,
    SignatureOption,
    TokenOption,
    questions_to_ask,
)
from picochat.core.errors import WrongUsage

if TYPE_CHECKING:
    from picochat.run.request import RunRequest

RunArgument = Annotated[Path | None, typer.Argument(metavar="RUN", help="the run folder")]
RunOption = Annotated[Path | None, typer.Option(help="the same, as an option")]
app = typer.Typer(no_args_is_help=True)


def _one_run(run: Path | None, run_dir: Path | None) -> Path:
    """The run folder, given as an argument or as --run-dir."""
    given = [folder for folder in (run, run_dir) if folder is not None]
    if len(given) != 1:
        what = "a run folder is needed" if not given else "two run folders are given"
        raise WrongUsage(what, fix="name one, as an argument or with --run-dir")
    return given[0]


class RequestedRun(NamedTuple):
    """The run that the options name, and how many training seeds; None: one."""

    request: RunRequest
    seeds: int | None


def asked_run(
    out_dir: Annotated[
        Path, typer.Option(help="the run folder; the same command goes on where it stopped")
    ],
    dataset_pack: Annotated[
        Path | None, typer.Option("--dataset-pack", "--pack", help="dataset_pack.json")
    ] = None,
    input_: Annotated[
        list[Path] | None,
        typer.Option("--input", help="file or folder of text, in place of a pack; may repeat"),
    ] = None,
    chat: Annotated[
        Path | None, typer.Option(help="with --input: conversations to fine-tune on")
    ] = None,
    eval_: Annotated[
        Path | None, typer.Option("--eval", help="with --input: questions to score")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="with --input: globs of the files to read, such as '**/*.py'"),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="with --input: licence of the text, such as CC-BY-4.0"),
    ] = None,
    scale: Annotated[str, typer.Option(help="a preset; `picochat scales` lists them")] = "tiny",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: the scale's")] = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bf16")] = None,
    matmul_precision: Annotated[str | None, typer.Option(help="highest, high or medium")] = None,
    attn_backend: Annotated[
        str | None, typer.Option(help="auto, flash, cudnn, efficient, math or fa3")
    ] = None,
    torch_compile: Annotated[
        bool | None, typer.Option("--torch-compile/--no-torch-compile", help="compile the step")
    ] = None,
    long_run_gate_profile: Annotated[
        str | None, typer.Option(help="research, first_release or skill_release")
    ] = None,
    base_steps: Annotated[int | None, typer.Option(help="steps of the base stage")] = None,
    sft_steps: Annotated[int | None, typer.Option(help="steps of the SFT stage")] = None,
    seed: Annotated[int | None, typer.Option(help="of weights, data order and splits")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=2, help="train so many times, with other weights and order; report mean and spread"
        ),
    ] = None,
    drop_near_duplicates: Annotated[
        bool | None,
        typer.Option(
            "--drop-near-duplicates/--keep-near-duplicates",
            help="all but the first document of each cluster",
        ),
    ] = None,
    external_eval: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|none|NAME=PATH",
            help=(
                "published benchmarks to score: auto is ARC-Easy, HellaSwag and PIQA from the Hub;"
                " may repeat"
            ),
        ),
    ] = None,
    external_eval_max_rows: Annotated[
        int | None,
        typer.Option(min=0, help="of each benchmark, the same rows in every run; 0: all"),
    ] = None,
    gpu_hour_usd: Annotated[
        float | None, typer.Option(help="price of a GPU hour, for the forecast")
    ] = None,
    budget_usd: Annotated[float | None, typer.Option(help="the forecast warns above it")] = None,
    checkpoint_minutes: Annotated[
        float | None, typer.Option(help="time between saved training states")
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="also send the figures of training to tensorboard, trackio or wandb; may repeat"
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="any other setting"),
    ] = None,
) -> RequestedRun:
    """The options of `run tiny`, which `run preregister` takes too."""
    from picochat.data.init_pack import pack_inputs
    from picochat.run.request import RunRequest

    flags: dict[str, object] = {
        "runtime.device": device,
        "runtime.precision": precision,
        "runtime.matmul_precision": matmul_precision,
        "runtime.attention_backend": attn_backend,
        "runtime.compile": torch_compile,
        "gate.profile": long_run_gate_profile,
        "external.benchmarks": external_eval or None,
        "external.max_rows": external_eval_max_rows,
        "gate.gpu_hour_usd": gpu_hour_usd,
        "gate.budget_usd": budget_usd,
        "base.steps": base_steps,
        "sft.steps": sft_steps,
        "seed": seed,
        "training_seed": seed,
        "data.drop_near_duplicates": drop_near_duplicates,
        "host.checkpoint_minutes": checkpoint_minutes,
        "host.track": track or None,
    }
    request = RunRequest(
        out_dir=out_dir,
        dataset_pack=dataset_pack,
        inputs=pack_inputs(input_, chat, eval_, include, licence),
        scale=scale,
        flags=flags,
        settings=set_ or [],
    )
    return RequestedRun(request, seeds)


def with_run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with the options of `asked_run` before its own; it is given what they name."""
    shared = inspect.signature(asked_run, eval_str=True).parameters
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @wraps(command)
    def with_options(**given: Any) -> None:
        asked = asked_run(**{name: given.pop(name) for name in shared})
        command(asked, **given)

    # typer reads options from signature and annotations.
    parameters = [*shared.values(), *own]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {each.name: each.annotation for each in parameters}
    return with_options


@app.command("tiny")
@with_run_options
def tiny(
    asked: RequestedRun,
    preflight_only: Annotated[
        bool, typer.Option(help="stop after the preflight; exit 3 where it blocks")
    ] = False,
    train_anyway: Annotated[
        bool, typer.Option(help="train although the preflight blocks; the gate will not approve")
    ] = False,
) -> None:
    """Turn a pack, or a folder of text, into a chat model with a verdict.

    `tiny` is only the name: --scale decides the size.

    Example: picochat run tiny --input notes --chat chats.jsonl --eval questions.jsonl --out-dir run
    """
    from picochat.run.runner import run_pack
    from picochat.run.seeds import run_seeds

    request = replace(asked.request, preflight_only=preflight_only, train_anyway=train_anyway)
    verdict = run_pack(request) if asked.seeds is None else run_seeds(request, asked.seeds)
    for line in verdict.lines:
        typer.echo(line)
    raise typer.Exit(verdict.exit_code)


@app.command("preregister")
@with_run_options
def preregister(
    asked: RequestedRun,
    eval_texts: Annotated[
        bool, typer.Option(help="announce the texts of the eval rows too, not only their digests")
    ] = False,
    push_to_hub: PushOption = False,
    repo_id: RepositoryOption = None,
    private: PrivateOption = False,
    token_env: TokenOption = "HF_TOKEN",
    commit_message: MessageOption = None,
) -> None:
    """Announce a run before it is trained: what will be trained and judged, for `run verify
    --preregistration`. Takes the options of the run.

    Example: picochat run preregister --dataset-pack pack.json --out-dir runs/mine
    """
    from picochat.release.preregistration import preregister_run
    from picochat.release.push import push_target

    push = push_target(push_to_hub, repo_id, private, token_env, commit_message)
    for line in preregister_run(asked.request, asked.seeds, eval_texts, push):
        typer.echo(line)


@app.command("bundle")
def bundle(
    run: RunArgument = None,
    run_dir: RunOption = None,
    out: Annotated[Path | None, typer.Option(help="the .tgz; default: <run>-bundle.tgz")] = None,
    logs_dir: Annotated[Path | None, typer.Option(help="logs to include")] = None,
    strict: Annotated[
        bool, typer.Option(help="refuse an incomplete run, naming what is missing")
    ] = False,
    include_weights: Annotated[
        bool, typer.Option(help="the scored checkpoint and the base checkpoint")
    ] = True,
    include_token_shards: Annotated[bool, typer.Option(help="the encoded corpus, large")] = False,
    include_replay: Annotated[
        bool, typer.Option(help="the state that verify --replay starts from, large")
    ] = False,
) -> None:
    """Put a run's evidence into one reproducible .tgz. A blocked verdict is evidence too.

    Example: picochat run bundle runs/mine --out mine.tgz
    """
    from picochat.release.bundle import make_bundle
    from picochat.run.folder import require_run

    folder = _one_run(run, run_dir)
    report = make_bundle(
        require_run(folder),
        out or Path(f"{folder.resolve().name}-bundle.tgz"),
        logs_dir,
        strict,
        include_weights=include_weights,
        include_token_shards=include_token_shards,
        include_replay=include_replay,
    )
    for line in report.lines():
        typer.echo(line)


@app.command("verify")
def verify(
    path: Annotated[Path, typer.Argument(help="a bundle, or a run folder")],
    as_json: Annotated[bool, typer.Option("--json", help="one object instead of lines")] = False,
    replay: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="train this many base steps again from the kept state, and compare the losses",
        ),
    ] = None,
    ask: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help=(
                "ask the shipped weights N recorded questions again, or all of them, and compare"
                " the replies"
            ),
        ),
    ] = None,
    ask_seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="with --ask: which questions; default: drawn by chance, and printed"
        ),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help=(
                "with --replay or --ask: the run folder that holds token shards and state, or"
                " weights, where a bundle does not"
            )
        ),
    ] = None,
    from_step: Annotated[
        int | None,
        typer.Option(
            min=0,
            help=(
                "with --replay: begin at this saved state, 0 for the first weights; `run challenge`"
                " draws one. Default: the published state"
            ),
        ),
    ] = None,
    preregistration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|OWNER/NAME",
            help="also compare the run with its announcement: a file, or a repository on the Hub",
        ),
    ] = None,
    signature: SignatureOption = None,
    public_key: PublicKeyOption = None,
    identity: IdentityOption = None,
    identity_provider: ProviderOption = None,
) -> None:
    """Check a bundle without network or GPU: digests, the chain between artifacts, the claims
    computed again. Exit 3: it differs.

    Example: picochat run verify mine.tgz --ask all
    """
    from picochat.export.export_record import EXPORT_RECORD
    from picochat.release.signature import stated_signature, with_signature
    from picochat.release.verify import holding, inspect_bundle

    if run_dir is not None and replay is None and ask is None:
        raise WrongUsage(
            "--run-dir needs --replay or --ask",
            fix="add --ask all, which asks all recorded questions again",
        )
    if from_step is not None and replay is None:
        raise WrongUsage("--from-step needs --replay", fix=f"--replay 100 --from-step {from_step}")
    if ask_seed is not None and ask is None:
        raise WrongUsage("--ask-seed needs --ask", fix=f"--ask 50 --ask-seed {ask_seed}")
    count = None if ask is None else questions_to_ask(ask)
    for folder in (path, path.parent):
        if (folder / EXPORT_RECORD).is_file():
            raise WrongUsage(
                f"{path} is of an exported model, which holds a part of the run's evidence",
                fix=f"picochat export verify {quote(str(folder))}",
            )
    announcements = None
    if preregistration is not None:  # before long work: a wrong name is said at once
        from picochat.release.preregistration_check import find_announcements

        announcements = find_announcements(preregistration)
    stated = stated_signature(signature, public_key, identity, identity_provider)
    if replay is None:
        report = inspect_bundle(path)
    else:
        from picochat.release.replay import inspect_with_replay

        report = inspect_with_replay(path, replay, run_dir, from_step)
    if ask is not None:
        from picochat.release.ask import with_questions

        report = with_questions(report, count, ask_seed, run_dir)
    if announcements is not None:
        from picochat.release.preregistration_check import with_preregistration

        report = with_preregistration(report, announcements)
    report = with_signature(report, stated)
    if as_json:
        # json.dumps writes ASCII: names in a bundle come from strangers and could hold control or
        # invisible characters.
        typer.echo(json.dumps(report.to_json(), sort_keys=True))
        raise typer.Exit(report.exit_code)
    for line in holding(report).lines():
        typer.echo(line)


@app.command("challenge")
def challenge(
    path: Annotated[Path, typer.Argument(help="a bundle, or a run folder")],
    seed: Annotated[
        int | None, typer.Option(min=0, help="which stretch; default: drawn by chance, and printed")
    ] = None,
) -> None:
    """Draw a stretch of base training to ask the publisher for; `run verify --replay` trains it
    again.

    Example: picochat run challenge mine.tgz
    """
    from picochat.release.challenge import challenge

    for line in challenge(path, seed):
        typer.echo(line)


@app.command("sign")
def sign(
    path: Annotated[Path, typer.Argument(help="a bundle, or a run folder")],
    key: Annotated[
        Path | None, typer.Option(help="a private key: .pem, elliptic curve, without password")
    ] = None,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="sigstore confirms who you are; needs a network")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="the signature; default: PATH.sig")] = None,
) -> None:
    """Sign the evidence of a run once it verifies: one signature for all its bundles and its
    exported model.

    Example: picochat run sign mine.tgz --key key.pem
    """
    from picochat.release.signature import sign_evidence

    if (key is not None) == keyless:
        raise WrongUsage("a signature is by one key, or keyless", fix="--key KEY.pem, or --keyless")
    out = out or Path(f"{path}.sig")
    line = sign_evidence(path, key, out)
    typer.echo(f"signature {out}")
    typer.echo(line)


@app.command("status")
def status(run: RunArgument = None, run_dir: RunOption = None) -> None:
    """What a run, or the run of each of several seeds, has made and is doing, and what is missing.

    Example: picochat run status runs/mine
    """
    from picochat.run.folder import holds_seeds, require_run
    from picochat.run.seeds import seeds_status_lines
    from picochat.run.status import status_lines

    folder = _one_run(run, run_dir)
    several = holds_seeds(folder)
    for line in seeds_status_lines(folder) if several else status_lines(require_run(folder)):
        typer.echo(line)


@app.command("show")
def show(run: RunArgument = None, run_dir: RunOption = None) -> None:
    """A finished run on one screen: verdict, curve, skills, replies; of several seeds the spread.

    Example: picochat run show runs/mine
    """
    from picochat.present.terminal import print_verdict
    from picochat.release.show import show_lines
    from picochat.run.folder import holds_seeds, require_run
    from picochat.run.seeds import seeds_show_lines

    folder = _one_run(run, run_dir)
    several = holds_seeds(folder)
    print_verdict(seeds_show_lines(folder) if several else show_lines(require_run(folder)))


@app.command("compare")
def compare(
    a: Annotated[
        Path, typer.Argument(metavar="A", help="a run folder, a bundle, or runs with several seeds")
    ],
    b: Annotated[Path, typer.Argument(metavar="B", help="the same of the other side")],
    as_json: Annotated[bool, typer.Option("--json", help="one object instead of lines")] = False,
    out: Annotated[
        Path | None, typer.Option(help="also draw the differences with their intervals: an .svg")
    ] = None,
) -> None:
    """Which differences between two runs are larger than chance, and what differs in settings and
    data. A folder with a seeds.json holds runs of one recipe with several seeds.

    Example: picochat run compare runs/before runs/after
    """
    from picochat.core.records import require_writable, write_atomic
    from picochat.release.compared_input import compare_paths
    from picochat.report.comparison_page import comparison_lines, comparison_picture

    if out is not None:
        require_writable(out)
    found = compare_paths(a, b)
    if out is not None:
        write_atomic(out, comparison_picture(found).encode())
    if as_json:
        typer.echo(json.dumps(found.to_json(), sort_keys=True))
        return
    for line in comparison_lines(found):
        typer.echo(line)
