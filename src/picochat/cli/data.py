"""`picochat data ...`: the commands that import, preview, make skill rows and scan.

There is no logic here: each command calls one function and prints what it returns.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Public text in: import it, preview a pack, make SFT and eval rows."
)


class SampleChoice(str, Enum):
    spread = "spread"
    head = "head"


class AnswerStyle(str, Enum):
    direct = "direct"
    scratchpad = "scratchpad"


@app.command("hf-import")
def hf_import(
    dataset: Annotated[
        str,
        typer.Option(
            help="OWNER/NAME on the Hub, or a local file or folder laid out like a dataset."
        ),
    ],
    out: Annotated[
        str,
        typer.Option(help="Text file for the first documents, to look at; reports lie beside it."),
    ],
    config: Annotated[str | None, typer.Option(help="Config (subset) of the dataset.")] = None,
    split: Annotated[str, typer.Option(help="Split of the config.")] = "train",
    text_column: Annotated[str, typer.Option(help="Column that holds the text.")] = "text",
    documents_dir: Annotated[
        str | None, typer.Option(help="Folder for the documents. [default: documents beside --out]")
    ] = None,
    report: Annotated[
        str | None, typer.Option(help="Report file. [default: hf_import_report.json beside --out]")
    ] = None,
    max_rows: Annotated[int, typer.Option(help="Rows to inspect.")] = 1000,
    min_chars: Annotated[int, typer.Option(help="Shorter texts are skipped and counted.")] = 20,
    document_shard_rows: Annotated[int, typer.Option(help="Documents in one shard file.")] = 1000,
    revision: Annotated[
        str | None,
        typer.Option(help="Branch, tag or commit. [default: main, pinned to its commit]"),
    ] = None,
    sample: Annotated[
        SampleChoice, typer.Option(help="spread: over all files by the seed; head: the first rows.")
    ] = SampleChoice.spread,
    seed: Annotated[int, typer.Option(help="Order of a spread sample.")] = 42,
    connections: Annotated[
        int, typer.Option(min=1, max=64, help="Files read at the same time; changes no result.")
    ] = 8,
    timeout: Annotated[
        float,
        typer.Option(min=1, help="Seconds without a byte after which a request is made again."),
    ] = 30.0,
    force: Annotated[
        bool, typer.Option("--force", help="Set another import aside and begin again.")
    ] = False,
) -> None:
    """Import rows of a dataset as documents, with a report of where each came from. A repeated
    command goes on or is done.

    Reads parquet, jsonl(.gz, .zst), txt and md. Skipped and counted: repeated texts, and texts of
    more than 20 million characters. HF_TOKEN and HF_ENDPOINT are honoured.

    Example: picochat data hf-import --dataset OWNER/NAME --out name/corpus.txt --max-rows 5000
    """
    from picochat.data.importing.hf_import import import_dataset
    from picochat.data.importing.hub import RetryPolicy
    from picochat.data.importing.import_report import ImportRequest

    request = ImportRequest(
        dataset=dataset,
        out=out,
        config=config,
        split=split,
        text_column=text_column,
        documents_dir=documents_dir,
        report=report,
        max_rows=max_rows,
        min_chars=min_chars,
        document_shard_rows=document_shard_rows,
        revision=revision,
        sample=sample.value,
        seed=seed,
    )
    import_dataset(
        request, force=force, connections=connections, retry=RetryPolicy(timeout_s=timeout)
    )


@app.command("preview")
def preview(
    dataset_pack: Annotated[
        Path, typer.Option("--dataset-pack", "--pack", help="dataset_pack.json of the pack.")
    ],
    scale: Annotated[str, typer.Option(help="Scale to measure the pack against.")] = "h100-100m",
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Read all of a large pack: exact counts, duplicates of all documents."
        ),
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="File of the page. [default: preview.html beside the pack]")
    ] = None,
    no_html: Annotated[bool, typer.Option("--no-html", help="Write no page.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of text; no page unless --html.")
    ] = False,
) -> None:
    """What a pack holds, and whether it is enough for a scale: on the terminal, and as a page with
    pictures.

    Example: picochat data preview --pack pack/dataset_pack.json --scale tiny
    """
    from picochat.core.errors import WrongUsage
    from picochat.core.records import pretty_json, require_writable
    from picochat.data.pack import load_pack
    from picochat.preview.preview_pack import preview_pack
    from picochat.preview.preview_page import publish_page
    from picochat.preview.preview_screen import render_preview
    from picochat.run.runner import shared_corpus
    from picochat.scales import find_scale

    if html is not None and no_html:
        raise WrongUsage("--html and --no-html contradict each other", fix="leave one of them out")
    wanted = find_scale(scale)
    pack = load_pack(dataset_pack)
    if html is not None:
        require_writable(html)
    found = preview_pack(pack, wanted, full=full, corpus=lambda: shared_corpus(wanted.config, pack))
    typer.echo(pretty_json(found) if as_json else render_preview(found), nl=False)
    if html is not None or not (no_html or as_json):
        publish_page(found, pack, html)


@app.command("init-pack")
def init_pack(
    input_: Annotated[
        list[Path], typer.Option("--input", help="File or folder of text; may repeat.")
    ],
    out_dir: Annotated[Path, typer.Option(help="Folder for the pack.")],
    chat: Annotated[Path | None, typer.Option(help="Conversations to fine-tune on.")] = None,
    eval_: Annotated[Path | None, typer.Option("--eval", help="Questions to score.")] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Globs of the files to read, such as '**/*.py'; may repeat."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence of the text, such as CC-BY-4.0.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace another pack.")] = False,
) -> None:
    """Write a pack of files and folders, to look at and to edit.

    Example: picochat data init-pack --input notes --chat chats.jsonl --out-dir pack
    """
    from picochat.data.init_pack import PackInputs
    from picochat.data.init_pack import init_pack as write_pack

    inputs = PackInputs(input_, chat, eval_, include or (), licence)
    pack = write_pack(inputs, out_dir, force=force)
    for line in pack.lines:
        typer.echo(line)
    typer.echo(f"pack: {pack.path}")
    typer.echo(f"next: picochat data preview --dataset-pack {pack.path} --scale tiny")


@app.command("task-pack")
def task_pack(
    dataset_pack: Annotated[
        Path, typer.Option("--dataset-pack", "--pack", help="dataset_pack.json of the pack.")
    ],
    out_dir: Annotated[
        Path | None, typer.Option(help="Folder for the rows. [default: the pack's]")
    ] = None,
    chat_out: Annotated[Path | None, typer.Option(help="File of the SFT rows.")] = None,
    eval_out: Annotated[Path | None, typer.Option(help="File of the eval rows.")] = None,
    sft_rows: Annotated[int, typer.Option(help="SFT rows.")] = 1600,
    eval_rows: Annotated[int, typer.Option(help="Eval rows.")] = 320,
    profile: Annotated[str, typer.Option(help="Mix of the skills.")] = "release_skills",
    skill_answer_style: Annotated[
        AnswerStyle, typer.Option(help="How worked answers are written.")
    ] = AnswerStyle.scratchpad,
    source: Annotated[
        str,
        typer.Option(
            help="offline: this project's rows alone; hf: and SFT rows of public sets from the Hub."
        ),
    ] = "offline",
    public_rows: Annotated[
        int | None,
        typer.Option(help="Rows of --source hf, on top of --sft-rows. [default: a quarter]"),
    ] = None,
    skill_weights: Annotated[
        str | None,
        typer.Option(
            help="Shares of the skills in place of the profile's, such as math=.5,spelling=.5."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the rows.")] = 42,
    force: Annotated[bool, typer.Option("--force", help="Replace rows that stand there.")] = False,
    add: Annotated[
        bool, typer.Option("--add", help="Keep the pack's own rows, and add these to them.")
    ] = False,
    promote: Annotated[
        bool, typer.Option("--promote/--no-promote", help="Write the rows' names into the pack.")
    ] = True,
) -> None:
    """Make SFT and eval rows of the skills, and name them in the pack.

    Example: picochat data task-pack --pack pack/dataset_pack.json --sft-rows 2800 --eval-rows 700
    """
    from picochat.data.pack import pack_file
    from picochat.skills.task_pack import TaskPackRequest, make_task_pack

    dataset_pack = pack_file(dataset_pack)
    report = make_task_pack(
        TaskPackRequest(
            pack_path=dataset_pack,
            out_dir=out_dir or dataset_pack.parent,
            sft_rows=sft_rows,
            eval_rows=eval_rows,
            profile=profile,
            answer_style=skill_answer_style.value,
            source=source,
            seed=seed,
            chat_out=chat_out,
            eval_out=eval_out,
            public_rows=public_rows,
            skill_weights=skill_weights,
            force=force,
            add=add,
            promote=promote,
        )
    )
    for line in report.lines():
        typer.echo(line, err=True)


@app.command("honesty")
def honesty(
    dataset_pack: Annotated[
        Path, typer.Option("--dataset-pack", "--pack", help="dataset_pack.json of the pack.")
    ],
    eval_input: Annotated[
        Path | None,
        typer.Option(help="Eval rows to look for, as JSON lines. [default: the pack's]"),
    ] = None,
    external_eval: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|NAME=PATH", help="Published benchmarks to look for as well; may repeat."
        ),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option(help="Folder of the reports. [default: honesty beside the pack]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes. [default: one for each core]")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of text.")
    ] = False,
) -> None:
    """Look for eval and benchmark rows in a pack's documents and SFT rows, without a run.

    Exit 3: a release would be blocked.

    Example: picochat data honesty --pack pack/dataset_pack.json
    """
    from picochat.config import resolve
    from picochat.core.records import pretty_json, require_writable
    from picochat.data.pack import load_pack
    from picochat.gate.pack_scan import benchmark_items, scan_pack, write_reports
    from picochat.present.terminal import print_verdict
    from picochat.scales import find_scale

    pack = load_pack(dataset_pack)
    folder = out_dir or pack.path.parent / "honesty"
    require_writable(folder / "report.json")
    named = resolve(
        find_scale("tiny").config, {"external.benchmarks": external_eval or None}, {}
    ).config.external
    report = scan_pack(
        pack, eval_input=eval_input, benchmarks=benchmark_items(named), workers=workers
    )
    write_reports(report, folder)
    if as_json:
        typer.echo(pretty_json(report.to_json()), nl=False)
    else:
        print_verdict([*report.lines(), "", f"report: {folder / 'report.md'}"])
    raise typer.Exit(report.exit_code)
