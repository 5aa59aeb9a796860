"""Generates checks.md, config.md, artifacts.md and the JSON Schemas in docs/ from the code.

python -m picochat.cli.pages --write docs     write the pages
python -m picochat.cli.pages --check docs     exit 1, naming each page that differs
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from picochat.config import RunConfig, flatten
from picochat.core.progress import say
from picochat.core.records import write_atomic
from picochat.data.pack_schema import corpus_recipe_schema, dataset_pack_schema
from picochat.facts import MetricsRow
from picochat.gate.checks_page import checks_page
from picochat.present.printable import cell
from picochat.run.graph import ARTIFACTS, FRONT_PAGES, spec_of
from picochat.scales import SCALES
from picochat.skills.row_schema import chat_row_schema, eval_row_schema

REQUIRED = "set by the scale"

CONFIG_HEAD = """# Settings

Made from `src/picochat/config.py` and `scales.py` by `make docs`; do not edit.

A value comes from the default, the scale, the pack or the command line, each overriding the one\
 before. Any setting can be
given as `--set section.key=value`; `run.json` records every value with its origin. None means\
 off, or as the text says.
"""

ARTIFACTS_HEAD = """# Artifacts

Made from `src/picochat/run/graph.py` and `src/picochat/facts.py` by `make docs`; do not edit.

A run folder holds one folder for each stage that is done. Each appears whole or not at\
 all and carries `manifest.json`: what
it was made from (digests), its files (sha256 and size) and its facts. Files whose bytes\
 depend on clock or machine are listed
there as `volatile_files`: they are hashed, but stay out of the artifact's digest.
"""


def config_page() -> str:
    """Every setting with its type, default and meaning, then the settings of each scale."""
    sections = dict(_sections())
    alone = {name: field for name, field in RunConfig.model_fields.items() if name not in sections}
    del alone["scale"]  # names a whole column of settings: see _scales_part
    parts = [CONFIG_HEAD, "## seeds\n\n" + _settings_table(alone)]
    for name, section in sections.items():
        about = _description(section)
        parts.append(
            f"## {name}\n\n"
            + (f"{about}\n\n" if about else "")
            + _settings_table(
                {f"{name}.{key}": field for key, field in section.model_fields.items()}
            )
        )
    return "\n".join(parts) + "\n" + _scales_part()


def _sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Name and record of each section of the configuration; seeds and `scale` are in none."""
    for name, field in RunConfig.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield name, field.annotation


def _settings_table(settings: Mapping[str, FieldInfo]) -> str:
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, field in settings.items():
        kind = cell(_type_text(field.annotation) + _limits_text(field))
        lines.append(
            f"| `{name}` | {kind} | {_default_text(field)} | {cell(field.description or '')} |"
        )
    return "\n".join(lines) + "\n"


def _scales_part() -> str:
    parts = ["## Scales\n\nWhat each scale sets. Other settings keep their defaults.\n"]
    for scale in SCALES:
        device = f"{scale.gpus} GPU{'s' if scale.gpus > 1 else ''}" if scale.gpus else "CPU"
        settings = ", ".join(
            f"`{key}={_value_text(value)}`"
            for key, value in _changed_settings(scale.config).items()
        )
        parts.append(
            f"### {scale.name}\n\n{scale.purpose[0].upper()}{scale.purpose[1:]}"
            f" ({device}).\n\n{settings}\n"
        )
    return "\n".join(parts)


def _changed_settings(config: RunConfig) -> dict[str, object]:
    """The settings of a scale that differ from their defaults or have none."""
    defaults: dict[str, object] = {
        name: field.get_default() for name, field in RunConfig.model_fields.items()
    }
    for name, section in _sections():
        for key, field in section.model_fields.items():
            defaults[f"{name}.{key}"] = field.get_default()
    return {
        key: value
        for key, value in flatten(config).items()
        if key != "scale" and value != defaults[key]
    }


def artifacts_page() -> str:
    """Every artifact with its folder, files and facts, and the files at the top of a run folder."""
    lines = ["| kind | folder | files |", "|---|---|---|"]
    lines += [f"| {spec.kind} | `{spec.folder}/` | {cell(spec.files)} |" for spec in ARTIFACTS]
    lines += [
        "",
        "## At the top of a run folder",
        "",
        "`run.json` (the resolved configuration, each value with its origin),",
        "`machine.json` (the host), and copies of published files, which `picochat run verify`"
        " compares:",
        "",
    ]
    lines += [
        f"- `{page.name}` from `{spec_of(page.kind).folder}/{page.file}`" for page in FRONT_PAGES
    ]
    facts = [_facts_part(spec.kind, spec.facts) for spec in ARTIFACTS if spec.facts is not None]
    live = ["", "## Live facts", "", _facts_part("metrics.jsonl", MetricsRow, "field")]
    return "\n".join([ARTIFACTS_HEAD, *lines, "", "## Facts", "", *facts, *live])


def _facts_part(kind: str, facts: type[BaseModel], unit: str = "fact") -> str:
    about = _description(facts)
    lines = [
        f"### {kind}",
        "",
        *([about, ""] if about else []),
        f"| {unit} | type | meaning |",
        "|---|---|---|",
    ]
    for name, field in facts.model_fields.items():
        lines.append(
            f"| `{name}` | {cell(_type_text(field.annotation))} | {cell(field.description or '')} |"
        )
    return "\n".join(lines) + "\n"


def _description(model: type[BaseModel]) -> str:
    """The docstring of a record as one paragraph; empty if it has none of its own."""
    # From __dict__: an attribute would be inherited from the base class.
    return " ".join((model.__dict__.get("__doc__") or "").split())


def _type_text(annotation: Any) -> str:
    """`int`, `float or none`, `one of a, b`, `list of FindingRecord`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join("none" if item is type(None) else _type_text(item) for item in inner)
    if origin is Literal:
        return "one of " + ", ".join(str(item) for item in inner)
    if origin is dict:
        return f"{_type_text(inner[0])} to {_type_text(inner[1])}"
    if origin in (list, tuple):
        return f"list of {_type_text(inner[0])}"
    if origin is not None and inner:  # Annotated, as in PositiveInt
        return _type_text(inner[0])
    return getattr(annotation, "__name__", str(annotation))


def _limits_text(field: FieldInfo) -> str:
    signs = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
    found = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in signs
        if hasattr(item, name)
    ]
    return f" ({', '.join(found)})" if found else ""


def _default_text(field: FieldInfo) -> str:
    return REQUIRED if field.is_required() else f"`{_value_text(field.get_default())}`"


def _value_text(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


PAGES: tuple[tuple[str, Callable[[], str]], ...] = (
    ("checks.md", checks_page),
    ("config.md", config_page),
    ("artifacts.md", artifacts_page),
    ("schemas/dataset_pack.schema.json", dataset_pack_schema),
    ("schemas/corpus_recipe.schema.json", corpus_recipe_schema),
    ("schemas/chat_row.schema.json", chat_row_schema),
    ("schemas/eval_row.schema.json", eval_row_schema),
)


def stale_pages(folder: Path) -> list[str]:
    """Names of generated pages that are absent or out of date."""
    return [
        name
        for name, make in PAGES
        if not (folder / name).is_file() or (folder / name).read_text("utf-8") != make()
    ]


def write_pages(folder: Path) -> None:
    for name, make in PAGES:
        write_atomic(folder / name, make().encode())


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("--check", "--write"):
        say("usage: python -m picochat.cli.pages --check FOLDER | --write FOLDER")
        return 2
    folder = Path(arguments[1])
    if arguments[0] == "--write":
        write_pages(folder)
        return 0
    stale = stale_pages(folder)
    if stale:
        say(f"pages that differ from the code: {', '.join(str(folder / name) for name in stale)}")
        say(f"fix: python -m picochat.cli.pages --write {folder}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
