"""`picochat scales` shows the presets and what they cost.

The costs are computed by the functions that a run uses.
"""

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
    """
    from picochat.core.records import canonical_json
    from picochat.scales import SCALES, cost_of, keys_lines, scales_lines

    if keys:
        lines = keys_lines()
    elif as_json:
        lines = [
            canonical_json({"schema_version": 1, "scales": [cost_of(scale) for scale in SCALES]})
        ]
    else:
        lines = scales_lines()
    for line in lines:
        typer.echo(line)
