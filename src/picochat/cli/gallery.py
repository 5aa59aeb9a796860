"""`picochat gallery`: verifies bundles and writes a page of them. There is no logic here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from picochat.cli.options import questions_to_ask


def gallery(
    bundles: Annotated[list[Path], typer.Argument(help="bundles, or run folders")],
    out: Annotated[Path, typer.Option(help="the folder to make; an earlier gallery is replaced")],
    title: Annotated[str, typer.Option(help="the heading of the page")] = "Models and evidence",
    ask: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="ask the weights of each bundle N recorded questions again, or all of them",
        ),
    ] = None,
    with_bundles: Annotated[
        bool, typer.Option("--with-bundles", help="add each bundle that verifies, for download")
    ] = False,
) -> None:
    """Verify bundles and write a static page of them: verdicts, scores, cost, what was verified.

    A bundle that does not verify stands there with what differs. Exit 3: there is one.

    Example: picochat gallery mine.tgz yours.tgz --out site
    """
    from picochat.release.gallery import GalleryRequest, make_gallery

    again = None
    if ask is not None:
        count = questions_to_ask(ask)
        from picochat.release.ask import with_questions

        again = partial(with_questions, count=count, seed=None, run_dir=None)
    report = make_gallery(GalleryRequest(tuple(bundles), out, title, again, with_bundles))
    for line in report.lines():
        typer.echo(line)
    raise typer.Exit(report.exit_code)
