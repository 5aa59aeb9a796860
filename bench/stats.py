"""What the source looks like in numbers, of any commit, and how much of it one path runs through.

    python bench/stats.py [--tree FOLDER]... [--json] [--quick]

Prints a table with a column for each tree (default: this one). Counting uses the files alone, so an
older commit in a worktree is counted the same way. Three paths are traced in addition, unless
--quick is given: a training step, a local import, and `run tiny` until its verdict stands. A trace
runs the tree's own commands on Python's help topics and takes a minute or two for each tree.

Figures that depend on how lines are wrapped have a second one beside them that does not: characters
of code (without white space, comments and docstrings) and statements. Names are matched by their
spelling, not resolved, so `used once` looks only at names that are defined once.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import os
import pydoc_data.topics
import re
import shutil
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

PACKAGE = "picochat"
LONG_FUNCTION, LONG_FILE, WIDE = 60, 400, 100
SMALL_FUNCTION = 5
NAMED = "which "
PRAGMA = re.compile(r"#\s*(type:|noqa|pyright:|fmt:|ruff:|pragma:|!)")
Function = ast.FunctionDef | ast.AsyncFunctionDef
Table = dict[str, float | int | str]


@dataclass(frozen=True)
class Source:
    """A Python file, read and parsed."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def functions(self) -> list[Function]:
        """All functions: methods and nested ones too."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", type=Path, action="append", help="a checkout; may repeat")
    parser.add_argument("--json", action="store_true", help="one JSON object for each tree")
    parser.add_argument("--quick", action="store_true", help="count only, trace nothing")
    flags = parser.parse_args()
    tables: list[Table] = []
    for tree in flags.tree or [Path(__file__).parents[1]]:
        table = counted(tree.resolve())
        if not flags.quick:
            table |= traced(tree.resolve())
        tables.append({"tree": str(tree), **table})
    print("\n".join(map(json.dumps, tables)) if flags.json else rendered(tables))


def rendered(tables: list[Table]) -> str:
    """A line for each figure, a column for each tree, then the files that are named.

    Of two trees, the last column is the change in percent.
    """
    names = list(dict.fromkeys(name for table in tables for name in table))
    figures = [name for name in names if not name.startswith(NAMED)]
    rows = [[name, *(shown(table.get(name, "-")) for table in tables)] for name in figures]
    if len(tables) == 2:
        for row in rows:
            row.append(change(*(table.get(row[0]) for table in tables)))
    first, *widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(first), *map(str.rjust, row[1:], widths)]).rstrip() for row in rows
    ]
    for table in tables:
        lines += ["", str(table["tree"])]
        lines += [f"{name}: {table[name]}" for name in names if name.startswith(NAMED)]
    return "\n".join(lines)


def shown(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


def change(before: float | int | str | None, after: float | int | str | None) -> str:
    if isinstance(before, str) or isinstance(after, str) or not before or after is None:
        return ""
    return f"{after / before - 1:+.1%}"


# ---- what is counted -----------------------------------------------------------------------------


def counted(tree: Path) -> Table:
    sources = read_sources(tree / "src" / PACKAGE)
    tests = read_sources(tree / "tests")
    lines = sum(map(filled_lines, sources))
    functions = [function for source in sources for function in source.functions]
    lengths = [length(function) for function in functions]
    long_files = [source for source in sources if len(source.lines) > LONG_FILE]
    repeated = {n: c for n, c in file_names(sources).items() if c > 1}
    once, once_short = used_once(sources)
    classes = [n for s in sources for n in ast.walk(s.tree) if isinstance(n, ast.ClassDef)]
    docstrings = [text for source in sources for text in bare_strings(source.tree)]
    return {
        "files": len(sources),
        "lines without blank lines": lines,
        "characters of code": sum(map(code_characters, sources)),
        "statements": sum(map(statements, sources)),
        "median lines of a file": median(len(source.lines) for source in sources),
        f"files over {LONG_FILE} lines": len(long_files),
        "which are long": ", ".join(f"{where(s, tree)} {len(s.lines)}" for s in long_files),
        "files that share their name": sum(repeated.values()),
        "which share a name": ", ".join(
            f"{name} {count}" for name, count in sorted(repeated.items())
        ),
        "classes": len(classes),
        "classes without a method": sum(not has_method(node) for node in classes),
        "functions": len(functions),
        "median lines of a function": median(lengths),
        f"functions over {LONG_FUNCTION} lines": sum(n > LONG_FUNCTION for n in lengths),
        f"used once, of {SMALL_FUNCTION} lines or fewer": once,
        "used once, of one statement": once_short,
        f"lines over {WIDE} columns in src": sum(map(wide_lines, sources)),
        f"lines over {WIDE} columns in tests": sum(map(wide_lines, tests)),
        "comment lines": sum(map(comment_lines, sources)),
        "comment lines a hundred lines": 100 * sum(map(comment_lines, sources)) / lines,
        "docstring lines": sum(
            sum(bool(line.strip()) for line in text.splitlines()) for text in docstrings
        ),
        "docstrings without a sentence on line one": sum(map(runs_over, docstrings)),
        "test files": len(tests),
        "test lines": sum(map(filled_lines, tests)),
        "test lines to source lines": sum(map(filled_lines, tests)) / lines,
        **by_package(tree, sources, tests),
    }


def read_sources(folder: Path) -> list[Source]:
    found = [path for path in sorted(folder.rglob("*.py")) if "__pycache__" not in path.parts]
    texts = [(path, path.read_text(encoding="utf-8")) for path in found]
    return [Source(path, text, ast.parse(text)) for path, text in texts]


def where(source: Source, tree: Path) -> str:
    return str(source.path.relative_to(tree / "src" / PACKAGE))


def filled_lines(source: Source) -> int:
    return sum(bool(line.strip()) for line in source.lines)


def wide_lines(source: Source) -> int:
    return sum(len(line) > WIDE for line in source.lines)


def comment_lines(source: Source) -> int:
    """Lines that hold a comment for people: pragmas of tools do not count."""
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    comments = (token for token in tokens if token.type == tokenize.COMMENT)
    return len({token.start[0] for token in comments if not PRAGMA.match(token.string)})


def code_characters(source: Source) -> int:
    """Characters of the code that the parsed file writes out again, without white space.

    Comments and docstrings are gone, and so is every trace of how lines were wrapped.
    """
    code = ast.unparse(WithoutBareStrings().visit(ast.parse(source.text)))
    return len("".join(code.split()))


class WithoutBareStrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if bare_string(node) is not None else node


def statements(source: Source) -> int:
    every = sum(isinstance(node, ast.stmt) for node in ast.walk(source.tree))
    return every - len(bare_strings(source.tree))


def bare_string(node: ast.AST) -> str | None:
    """The text of a string that stands alone: a docstring of a module, class, function or field."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        value = node.value.value
        return value if isinstance(value, str) else None
    return None


def bare_strings(tree: ast.AST) -> list[str]:
    return [text for node in ast.walk(tree) if (text := bare_string(node)) is not None]


def runs_over(docstring: str) -> bool:
    """Whether the first sentence does not end on the first line."""
    lines = docstring.strip().splitlines()
    return len(lines) > 1 and bool(lines[1].strip()) and not re.search(r"[.:!?]$", lines[0].strip())


def length(function: Function) -> int:
    """From `def` to the last line, docstring and blank lines included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def body_of(function: Function) -> list[ast.stmt]:
    """The statements of a function without its docstring."""
    return function.body[1:] if ast.get_docstring(function, clean=False) else function.body


def has_method(node: ast.ClassDef) -> bool:
    return any(isinstance(part, Function) for part in node.body)


def used_once(sources: list[Source]) -> tuple[int, int]:
    """Functions whose name is defined once and used once: of few lines, and of one statement.

    Lines are counted from `def`, without the docstring. An import is not a use, and a use inside
    the function itself does not count.
    """
    defined = Counter(function.name for source in sources for function in source.functions)
    uses: Counter[str] = Counter()
    for source in sources:
        uses.update(names_used(source.tree))
    short = single = 0
    for function in (function for source in sources for function in source.functions):
        name, body = function.name, body_of(function)
        own = sum(used == name for used in names_used(function))
        if defined[name] != 1 or uses[name] - own != 1 or name.startswith("__"):
            continue
        text = ast.get_docstring(function, clean=False)
        lines = length(function) - (len(text.splitlines()) if text else 0)
        short += lines <= SMALL_FUNCTION
        single += len(body) == 1 and not hasattr(body[0], "body")
    return short, single


def names_used(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def file_names(sources: list[Source]) -> Counter[str]:
    return Counter(s.path.name for s in sources if s.path.name != "__init__.py")


def by_package(tree: Path, sources: list[Source], tests: list[Source]) -> Table:
    """Lines of each package and of its tests, by the first name below src and tests."""

    def package(path: Path, root: Path) -> str:
        first = path.relative_to(root).parts[0]
        return first.removesuffix(".py").removeprefix("test_")

    lines: Counter[str] = Counter()
    of_tests: Counter[str] = Counter()
    for source in sources:
        lines[package(source.path, tree / "src" / PACKAGE)] += filled_lines(source)
    for source in tests:
        of_tests[package(source.path, tree / "tests")] += filled_lines(source)
    return {
        f"  {name}: files, lines, tests to lines": " ".join(
            (
                str(sum(package(s.path, tree / "src" / PACKAGE) == name for s in sources)),
                f"{lines[name]:,}",
                f"{of_tests[name] / lines[name]:.2f}",
            )
        )
        for name in sorted(lines)
        if lines[name]
    }


# ---- what a path runs through --------------------------------------------------------------------

QUICK_RUN = (
    "base.eval_every=1000 sft.eval_every=1000 sft.sequences_per_step=8 evals.max_new_tokens=4"
    " evals.fit_rows=2 host.workers=1 runtime.threads=2 tokenizer.vocab_size=600 model.layers=1"
    " model.width=64 model.heads=2 model.kv_heads=1 model.mlp_width=64"
)
FEW, MORE = 20, 30


def traced(tree: Path) -> Table:
    """Files, functions and lines of functions that three paths run through.

    A step: what is called at least every other step more often in 30 steps than in 20, so that what
    a stage does once does not count. Import and run: what is called at all.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tracer").mkdir()
        harness = Path(__file__).parent / "harness" / "entered.py"
        shutil.copy(harness, folder / "tracer" / "sitecustomize.py")
        make_source(folder / "source")
        imported = trace(tree, folder, "import", import_command())
        make_pack(tree, folder)
        whole = trace(tree, folder, "run", run_command("run", FEW), "run/gate/manifest.json")
        few, more = (calls_of_base(tree, folder, steps) for steps in (FEW, MORE))
        step = {key for key, count in more.items() if count - few.get(key, 0) >= (MORE - FEW) // 2}
    paths = {"a training step": step, "a local import": imported, "`run tiny`": whole}
    return {
        key: value
        for path, entered in paths.items()
        for key, value in followed(tree, path, entered).items()
    }


def followed(tree: Path, path: str, entered: set[tuple[str, int]]) -> Table:
    """What a reader opens to follow the path: files, the functions called, and their size."""
    files: dict[str, int] = {}
    lines: set[tuple[Path, int]] = set()
    functions: set[ast.AST] = set()
    for source in read_sources(tree / "src" / PACKAGE):
        for function in source.functions:
            first = min([function.lineno, *(node.lineno for node in function.decorator_list)])
            if (str(source.path), first) in entered:
                name = where(source, tree)
                files[name] = files.get(name, 0) + 1
                functions.add(function)
                numbers = range(first, (function.end_lineno or first) + 1)
                lines |= {(source.path, n) for n in numbers if source.lines[n - 1].strip()}
    inside = {node for function in functions for node in ast.walk(function)}
    return {
        f"{path}: files": len(files),
        f"{path}: functions": len(functions),
        f"{path}: lines of these functions": len(lines),
        f"{path}: statements of these functions": sum(isinstance(n, ast.stmt) for n in inside),
        f"{NAMED}{path} calls, with functions": ", ".join(f"{n} {c}" for n, c in files.items()),
    }


def make_source(folder: Path) -> None:
    """A dataset folder of one parquet file with Python's help topics."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    texts = [text for _, text in sorted(pydoc_data.topics.topics.items())]
    pq.write_table(pa.table({"text": texts}), folder / "train.parquet")


def make_pack(tree: Path, folder: Path) -> None:
    """A pack of the imported documents, with rows of the five skills."""
    recipe = {"name": "r", "sources": [{"path": "documents", "label": "help"}]}
    pack = {"name": "p", "corpus": {"recipe": "recipe.json"}}
    pack |= {"chat": "chat.jsonl", "eval": "eval.jsonl"}
    (folder / "recipe.json").write_text(json.dumps(recipe))
    (folder / "pack.json").write_text(json.dumps(pack))
    for name in ("chat.jsonl", "eval.jsonl"):
        (folder / name).touch()
    rows = "data task-pack --dataset-pack pack.json --sft-rows 60 --eval-rows 40 --force"
    picochat(tree, folder, rows.split(), {})


def import_command() -> Sequence[str]:
    places = "--out corpus.txt --documents-dir documents --report report.json"
    return f"data hf-import --dataset source --split train {places} --max-rows 1000".split()


def run_command(out: str, base_steps: int) -> list[str]:
    settings = [word for setting in QUICK_RUN.split() for word in ("--set", setting)]
    steps = f"--base-steps {base_steps} --sft-steps 2 --long-run-gate-profile research".split()
    return ["run", "tiny", "--out-dir", out, "--dataset-pack", "pack.json", *steps, *settings]


def calls_of_base(tree: Path, folder: Path, steps: int) -> dict[tuple[str, int], int]:
    """How often each function is called until the base stage has published its weights."""
    out, counts = f"steps-{steps}", folder / f"counts-{steps}.json"
    done = f"{out}/base/checkpoint/manifest.json"
    trace(tree, folder, out, run_command(out, steps), done, {"ENTERED_COUNTS": str(counts)})
    return {(file, line): n for file, line, n in json.loads(counts.read_text())}


def trace(
    tree: Path,
    folder: Path,
    name: str,
    command: Sequence[str],
    stop: str = "",
    more: dict[str, str] | None = None,
) -> set[tuple[str, int]]:
    """(file, first line) of each function that the command calls, in all its processes."""
    log = folder / f"{name}.log"
    places = {"ENTERED_ROOT": str(tree / "src" / PACKAGE), "ENTERED_LOG": str(log)}
    stops = {"ENTERED_STOP": str(folder / stop)} if stop else {}
    picochat(tree, folder, command, places | stops | (more or {}))
    rows = (line.split("\t") for line in log.read_text().splitlines())
    return {(file, int(first)) for file, first in rows}


def picochat(tree: Path, folder: Path, command: Sequence[str], more: dict[str, str]) -> None:
    """One command of the tree's own picochat; its output is shown only where it fails."""
    paths = [str(folder / "tracer"), str(tree / "src")]
    ours = {"PYTHONPATH": os.pathsep.join(paths), "PICOCHAT_HOME": str(folder / "home")}
    line = [sys.executable, "-m", "picochat.cli.main", *command]
    result = subprocess.run(
        line, cwd=folder, env={**os.environ, **ours, **more}, capture_output=True, text=True
    )
    if result.returncode not in (0, 3):  # 3 is a verdict of no, which ends the path as well
        sys.exit(f"{' '.join(line)}\n{result.stderr}")


if __name__ == "__main__":
    main()
