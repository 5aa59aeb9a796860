"""`picochat scales`: shows the presets and their costs, computed by the functions of a run."""

from __future__ import annotations

from typing import Annotated

import typer


def scales(
    keys: Annotated[
        bool, typer.Option("--keys", help="list every setting and its value at each scale instead")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one object instead of a table")] = False,
) -> None:
    """The presets: parameters, planned tokens, memory and a forecast.

    Forecasts state the speed they assume.

    Example: picochat scales --keys
    """
    from picochat.core.records import canonical_json
    from picochat.scales import SCALES, cost_of, keys_lines, scales_lines

    if as_json and not keys:
        costs = [cost_of(scale) for scale in SCALES]
        typer.echo(canonical_json({"schema_version": 1, "scales": costs}))
        return
    for line in keys_lines() if keys else scales_lines():
        typer.echo(line)
