"""The front matter of a dataset's README.md: its licence, and which files hold which split.

All scalars are text as written, so a config may be called `no`, `010` or `12:30`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from picochat.core.errors import BadInput

# As the Hub reads it: after blank lines, with any line ends. Spaces after the dashes do not count.
FRONT_MATTER = re.compile(
    r"\A\ufeff?\s*---[ \t]*(?:\r\n|\r|\n)(.*?)(?:\r\n|\r|\n)---[ \t]*(?:\r|\n|\Z)", re.DOTALL
)
ABSENT = frozenset({"", "~", "null", "Null", "NULL"})
"""How YAML writes that there is no value."""


@dataclass(frozen=True)
class Card:
    """What the front matter of a dataset's README.md states."""

    licence: str | None
    configs: tuple[dict[str, Any], ...]


NO_CARD = Card(licence=None, configs=())


def read_card(readme: str) -> Card:
    """The licence and configs of a README's YAML front matter.

    Raises BadInput where the YAML is broken or PyYAML is absent.
    """
    found = FRONT_MATTER.match(readme)
    if not found:
        return NO_CARD
    try:
        import yaml
    except ModuleNotFoundError:
        raise BadInput(
            "the dataset card cannot be read: PyYAML is not installed",
            fix="pip install 'picochat[hf]'",
        ) from None
    try:
        front = yaml.load(found.group(1), yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:  # RecursionError: nested too deep
        raise BadInput(
            "the dataset card's front matter is not valid YAML"
            f" ({(str(error).splitlines() or ['?'])[0]})",
            fix=(
                "repair README.md; if the dataset is not yours, import a local copy without"
                " README.md"
            ),
        ) from None
    if not isinstance(front, dict):
        return NO_CARD
    licence = stated(front.get("license"))
    if isinstance(licence, list):
        licence = " and ".join(str(item) for item in licence)
    if licence == "other":
        licence = stated(front.get("license_name")) or licence
    configs = front.get("configs")
    return Card(
        str(licence) if licence else None,
        tuple(
            item
            for item in (configs if isinstance(configs, list) else [])
            if isinstance(item, dict) and "config_name" in item
        ),
    )


def stated(value: Any) -> Any:
    """The value; None where the card leaves it empty or writes null."""
    return None if isinstance(value, str) and value in ABSENT else value
