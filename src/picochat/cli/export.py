"""`picochat export`: writes a model folder that other tools load, and checks one. There is no logic
here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

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
)

app = typer.Typer(no_args_is_help=True)


@app.callback()
def export() -> None:
    """A folder that any tool loads."""


@app.command("hf")
def hf(
    checkpoint: Annotated[
        Path, typer.Option(help="a checkpoint folder, such as RUN/sft/checkpoint")
    ],
    tokenizer: Annotated[Path, typer.Option(help="the tokenizer.json of the same run")],
    out_dir: Annotated[
        Path, typer.Option(help="the folder to make; an earlier export there is set aside")
    ],
    model_name: Annotated[str, typer.Option(help="the name on the card")] = "picochat",
    license_: Annotated[
        str, typer.Option("--license", help="identifier as the Hub spells it: mit, apache-2.0 ...")
    ] = "unknown",
    dataset_summary: Annotated[
        str, typer.Option(help="the publisher's words about the data, for the card")
    ] = "",
    eval_summary: Annotated[
        str, typer.Option(help="the publisher's words about the scores, for the card")
    ] = "",
    eval_task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=TASK",
            help=(
                "enter the score on this benchmark on the Hub's leaderboard, as this task of the"
                " dataset's eval.yaml; may repeat"
            ),
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="of the stored weights: float32 (as scored) or bf16 (half the size)")
    ] = "float32",
    flavor: Annotated[str, typer.Option(help="the stock class: stablelm or cohere")] = "stablelm",
    allow_unscored: Annotated[
        bool, typer.Option(help="export weights that the run did not score; the card says so")
    ] = False,
    push_to_hub: PushOption = False,
    repo_id: RepositoryOption = None,
    private: PrivateOption = False,
    token_env: TokenOption = "HF_TOKEN",
    commit_message: MessageOption = None,
) -> None:
    """Write a checkpoint as a Hugging Face folder, read it back, compare the logits, and publish it
    if asked.

    Example: picochat export hf --checkpoint runs/mine/sft/checkpoint
    --tokenizer runs/mine/tokenizer/tokenizer.json --out-dir model
    """
    from picochat.release.hub_results import named_tasks
    from picochat.release.push import push_target

    # Before torch is imported, so that wrong flags are reported at once.
    tasks = named_tasks(eval_task or [])
    push = push_target(push_to_hub, repo_id, private, token_env, commit_message)
    from picochat.release.hf import ExportRequest, export_hf

    report = export_hf(
        ExportRequest(
            checkpoint=checkpoint,
            tokenizer=tokenizer,
            out_dir=out_dir,
            model_name=model_name,
            licence=license_,
            dataset_summary=dataset_summary,
            eval_summary=eval_summary,
            eval_tasks=tasks,
            dtype=dtype,
            flavor=flavor,
            allow_unscored=allow_unscored,
            push=push,
        )
    )
    for line in report.lines():
        typer.echo(line)


@app.command("verify")
def verify(
    model: Annotated[str, typer.Argument(help="an exported folder, or OWNER/NAME on the Hub")],
    bundle: Annotated[
        Path | None,
        typer.Option(help="the run's evidence bundle, which is verified too and compared"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one object instead of lines")] = False,
    signature: SignatureOption = None,
    public_key: PublicKeyOption = None,
    identity: IdentityOption = None,
    identity_provider: ProviderOption = None,
) -> None:
    """Check an exported folder: its weights are those that were scored, and card, tokenizer and
    verdicts follow from the evidence in it. Exit 3: it differs.

    Example: picochat export verify model --bundle mine.tgz
    """
    from picochat.release.signature import stated_signature, with_signature

    stated = stated_signature(signature, public_key, identity, identity_provider)
    from picochat.release.export_check import inspect_model
    from picochat.release.verify import holding

    report = with_signature(inspect_model(model, bundle), stated)
    if as_json:
        typer.echo(json.dumps(report.to_json(), sort_keys=True))
        raise typer.Exit(report.exit_code)
    for line in holding(report).lines():
        typer.echo(line)
