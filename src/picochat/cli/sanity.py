"""`picochat sanity`: tests whether this host trains correctly, and how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _group() -> None:
    """typer would drop the name `preh100` of a group with one command and no callback."""


@app.command("preh100")
def preh100(
    out_dir: Annotated[Path, typer.Option(help="where preh100_sanity.json and .md go")] = Path(
        "runs/preh100-sanity"
    ),
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; default: cuda where torch sees it")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 or bf16; default: bf16 on cuda")
    ] = None,
    matmul_precision: Annotated[str, typer.Option(help="highest, high or medium")] = "high",
    attn_backend: Annotated[
        str, typer.Option(help="auto, flash, cudnn, efficient, math or fa3")
    ] = "auto",
    include_compile: Annotated[bool, typer.Option(help="also compare compiled with eager")] = False,
    capacity_scale: Annotated[
        str | None, typer.Option(help="also run real steps of this scale")
    ] = None,
    capacity_batch_size: Annotated[
        int | None, typer.Option(min=1, help="sequences of one micro-batch; default: the scale's")
    ] = None,
    capacity_min_free_fraction: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="memory that must stay free")
    ] = 0.10,
    gpu_hour_usd: Annotated[
        float | None,
        typer.Option(min=0.0, help="what an hour of one GPU costs, for the forecast in dollars"),
    ] = None,
) -> None:
    """Run every test of the sanity table on this host.

    Exit 3 where one fails: do not spend money on it.

    Example: picochat sanity preh100 --out-dir sanity --capacity-scale tiny
    """
    from picochat.config import RuntimeConfig
    from picochat.core.errors import WrongUsage
    from picochat.core.records import parse_record
    from picochat.model.runtime import detected_device
    from picochat.sanity.suite import SanityRequest, sanity

    device = device or detected_device()
    runtime = parse_record(
        RuntimeConfig,
        {
            "device": device,
            "precision": precision or ("bf16" if device == "cuda" else "float32"),
            "matmul_precision": matmul_precision,
            "attention_backend": attn_backend,
            "compile": include_compile,
        },
        "the command line",
        error=WrongUsage,
    )
    report = sanity(
        SanityRequest(
            out_dir,
            runtime,
            include_compile,
            capacity_scale,
            capacity_batch_size,
            capacity_min_free_fraction,
            gpu_hour_usd,
        )
    )
    for line in report.lines():
        typer.echo(line)
    raise typer.Exit(0 if report.passed else 3)
