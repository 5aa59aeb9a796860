"""`picochat eval`: asks any transformers folder the eval rows of a pack. There is no logic here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def eval_folder(
    model_folder: Annotated[
        Path,
        typer.Argument(help="a chat model as transformers saves it: config, weights, tokenizer"),
    ],
    dataset_pack: Annotated[
        Path,
        typer.Option("--dataset-pack", "--pack", help="dataset_pack.json that names eval rows"),
    ],
    out_dir: Annotated[
        Path | None,
        typer.Option(help="folder of the results; default: <name of the folder>-eval, here"),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; default: cuda where torch sees it")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 or bf16; default: bf16 on cuda")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="of one reply; a run's own scores use 64")
    ] = 64,
    batch_rows: Annotated[int, typer.Option(min=1, help="rows that are generated together")] = 32,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="ask only so many eval rows, for a first look")
    ] = None,
    external_eval: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|NAME=PATH", help="published benchmarks to score as well; may repeat"
        ),
    ] = None,
    external_eval_max_rows: Annotated[
        int, typer.Option(min=0, help="of each benchmark, the same rows in every run; 0: all")
    ] = 0,
) -> None:
    """Ask a model that picochat did not make the eval rows of a pack, and score its replies.

    The evaluator and its rules are those of a run, so the scores stand beside a run's own. The
    same command goes on where it stopped. Nothing is downloaded, and no code of the folder is run.

    Example: picochat eval SmolLM2-135M-Instruct --dataset-pack pack/dataset_pack.json
    """
    from picochat.config import EvalConfig, ExternalConfig, RuntimeConfig
    from picochat.core.errors import WrongUsage
    from picochat.core.records import parse_record
    from picochat.data.pack import load_pack_rows
    from picochat.evals.folder_answerer import require_model_folder
    from picochat.folder_eval.evaluate_folder import FolderEvalRequest, evaluate_folder
    from picochat.model.runtime import detected_device

    # First, because a mistyped folder is the likeliest mistake.
    require_model_folder(model_folder)
    device = device or detected_device()
    given = {
        "device": device,
        "precision": precision or ("bf16" if device == "cuda" else "float32"),
    }
    external = {"benchmarks": external_eval or None, "max_rows": external_eval_max_rows}
    request = FolderEvalRequest(
        model=model_folder,
        pack=load_pack_rows(dataset_pack),
        out_dir=out_dir or Path(f"{model_folder.resolve().name}-eval"),
        runtime=parse_record(RuntimeConfig, given, "the command line", error=WrongUsage),
        evals=EvalConfig(max_new_tokens=max_new_tokens, batch_rows=batch_rows),
        external=parse_record(ExternalConfig, external, "--external-eval", error=WrongUsage),
        max_rows=max_rows,
    )
    for line in evaluate_folder(request):
        typer.echo(line)
