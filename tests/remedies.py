"""Every remedy in the source: the texts that become the `fix` of an error, a problem or a finding.

A remedy is the value of `fix=`, or the second argument of `Problem`. Constants, both arms of a
condition, local variables, arguments that callers pass and what a function returns are followed to
their texts. `{}` stands for a value that is put in when the message is made. An expression that
cannot be followed stands in braces, so that none is missed; one that only hands on the `fix` of
another error is no remedy of its own.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "picochat"
HOLE = "{}"
Function = ast.FunctionDef | ast.AsyncFunctionDef
Names = Mapping[str, list[str]]


@dataclass(frozen=True, order=True)
class Remedy:
    """file: relative to the package. place: the function, or the name of the row of a table."""

    file: str
    place: str
    text: str


@dataclass(frozen=True)
class Module:
    """The constants of a module by name, resolved to their expressions, also imported ones."""

    file: str
    tree: ast.Module
    constants: dict[str, ast.expr] = field(default_factory=dict[str, ast.expr])


@cache
def modules() -> tuple[Module, ...]:
    found = {
        path.relative_to(SOURCE).as_posix(): Module(
            path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
        )
        for path in sorted(SOURCE.rglob("*.py"))
    }
    for module in found.values():
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                module.constants[node.targets[0].id] = node.value
    own = {module.file: dict(module.constants) for module in found.values()}
    for module in found.values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("picochat."):
                name = (node.module or "").removeprefix("picochat.").replace(".", "/") + ".py"
                for alias in node.names:
                    if alias.name in own.get(name, {}):
                        module.constants[alias.asname or alias.name] = own[name][alias.name]
    return tuple(found.values())


@cache
def functions() -> dict[str, list[tuple[Module, Function]]]:
    """Every function of the package by its bare name."""
    found: dict[str, list[tuple[Module, Function]]] = {}
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                found.setdefault(node.name, []).append((module, node))
    return found


@cache
def calls() -> dict[str, list[tuple[Module, Function | None, ast.Call]]]:
    """Every call by the bare name of what is called, with the function that it stands in."""
    found: dict[str, list[tuple[Module, Function | None, ast.Call]]] = {}
    for module in modules():
        for _, function, call in located(module):
            found.setdefault(called(call), []).append((module, function, call))
    return found


def called(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def located(module: Module) -> Iterator[tuple[str, Function | None, ast.Call]]:
    """(place, innermost function, call) of every call of a module."""

    def walk(
        node: ast.AST, path: tuple[str, ...], inner: Function | None
    ) -> Iterator[tuple[str, Function | None, ast.Call]]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            path = (*path, node.name)
            inner = inner if isinstance(node, ast.ClassDef) else node
        if isinstance(node, ast.Call):
            name = next((k.value for k in node.keywords if k.arg == "name"), None)
            row = str(name.value) if isinstance(name, ast.Constant) else "module"
            yield ".".join(path) or row, inner, node
        for child in ast.iter_child_nodes(node):
            yield from walk(child, path, inner)

    return walk(module.tree, (), None)


@cache
def remedies() -> tuple[Remedy, ...]:
    found: set[Remedy] = set()
    for module in modules():
        for place, function, call in located(module):
            for value in remedies_of(call):
                known = [t for t in texts(value, module, function, {}) if t and t != HOLE]
                for text in known or ([] if hands_on(value) else [f"{{{ast.unparse(value)}}}"]):
                    found.add(Remedy(module.file, place, text))
    return tuple(sorted(found))


def hands_on(value: ast.expr) -> bool:
    """Whether the expression is the `fix` of the caller, of another error or of a row."""
    names = [n.id for n in ast.walk(value) if isinstance(n, ast.Name)]
    fields = [n.attr for n in ast.walk(value) if isinstance(n, ast.Attribute)]
    return "fix" in [*names, *fields]


def remedies_of(call: ast.Call) -> list[ast.expr]:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "fix"]
    return given + (call.args[1:2] if called(call) == "Problem" else [])


def texts(node: ast.expr, module: Module, inside: Function | None, bound: Names) -> list[str]:
    """Every text that the expression can be; HOLE for one that only a run knows."""

    def of(value: ast.expr) -> list[str]:
        return texts(value, module, inside, bound)

    match node:
        case ast.Constant():
            return [node.value] if isinstance(node.value, str) else []
        case ast.JoinedStr():
            return joined([of(part) or [HOLE] for part in node.values])
        case ast.FormattedValue():
            constant = isinstance(node.value, ast.Name) and node.value.id.isupper()
            return (of(node.value) if constant else []) or [HOLE]
        case ast.BinOp(op=ast.Add()):
            return joined([of(node.left) or [HOLE], of(node.right) or [HOLE]])
        case ast.IfExp():
            return [*of(node.body), *of(node.orelse)]
        case ast.BoolOp():
            return [text for value in node.values for text in of(value)]
        case ast.Lambda():
            return of(node.body)
        case ast.List() | ast.Tuple():
            return [text for value in node.elts for text in of(value)]
        case ast.Dict():
            return [text for value in node.values for text in of(value)]
        case ast.DictComp():
            return of(node.value)
        case ast.ListComp():
            return of(node.elt)
        case ast.Starred() | ast.Subscript():
            return of(node.value)
        case ast.Name():
            return texts_of_name(node.id, module, inside, bound)
        case ast.Attribute(value=ast.Name(id=base)):
            return texts_of_attribute(base, node.attr)
        case ast.Attribute():
            return texts_of_attribute("", node.attr)
        case ast.Call():
            return texts_of_call(node, module, inside, bound)
        case _:
            return []


def joined(parts: list[list[str]]) -> list[str]:
    return ["".join(some) for some in itertools.product(*parts)]


def texts_of_name(name: str, module: Module, inside: Function | None, bound: Names) -> list[str]:
    if name in bound:
        return bound[name]
    if inside is not None:
        assigned = [
            node.value
            for node in ast.walk(inside)
            if isinstance(node, ast.Assign)
            and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
        ]
        if assigned:
            return [t for value in assigned for t in texts(value, module, inside, bound)]
        arguments = inside.args
        named = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        if name in named or name in [each.arg for each in arguments.kwonlyargs]:
            return texts_of_argument(name, named, inside) if name != "fix" else []
    if name in module.constants:
        return texts(module.constants[name], module, None, {})
    return []


def texts_of_attribute(base: str, name: str) -> list[str]:
    """The texts of `module.CONSTANT`, of a function `module.name`, or of a property."""
    for module in modules():
        if Path(module.file).stem == base and name in module.constants:
            return texts(module.constants[name], module, None, {})
    return [
        text
        for home, function in functions().get(name, [])
        if Path(home.file).stem == base or is_property(function)
        for text in texts_of_function(home, function, {})
    ]


def is_property(function: Function) -> bool:
    """Whether it is a property with a text."""
    marks = [ast.unparse(decorator) for decorator in function.decorator_list]
    returned = ast.unparse(function.returns) if function.returns else ""
    return "property" in marks and returned == "str"


def texts_of_function(home: Module, function: Function, bound: Names) -> list[str]:
    """What a function returns, arguments being `bound`."""
    return [
        text
        for node in ast.walk(function)
        if isinstance(node, ast.Return) and node.value is not None
        for text in texts(node.value, home, function, bound)
    ]


def texts_of_argument(name: str, positional: list[str], function: Function) -> list[str]:
    """The texts that callers pass."""
    found: list[str] = []
    names = [each for each in positional if each != "self"]
    for module, inside, call in calls().get(function.name, []):
        given = [keyword.value for keyword in call.keywords if keyword.arg == name]
        if name in names:
            given += call.args[names.index(name) :][:1]
        for value in given:
            if not (inside is function and isinstance(value, ast.Name)):
                found += texts(value, module, inside, {})
    return found


def texts_of_call(
    call: ast.Call, module: Module, inside: Function | None, bound: Names
) -> list[str]:
    """What the called function of the package returns, or the text that `.format` is called on."""
    if isinstance(call.func, ast.Attribute) and call.func.attr == "format":
        return [re.sub(r"\{\w*\}", HOLE, t) for t in texts(call.func.value, module, inside, bound)]
    if isinstance(call.func, ast.Attribute) and call.func.attr in ("join", "get"):
        # `"; ".join(fixes)`: each of the parts is a remedy. `TABLE.get(key, text)`: so is each row.
        table = [call.func.value] if call.func.attr == "get" else []
        return [t for value in [*table, *call.args] for t in texts(value, module, inside, bound)]
    if called(call) == "partial":
        return texts(call.args[0], module, inside, bound)
    found: list[str] = []
    known = functions().get(called(call), [])
    for home, function in [each for each in known if each[0] is module] or known:
        names = [each.arg for each in function.args.args if each.arg != "self"]
        given = dict(zip(names, call.args, strict=False))
        given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
        values = {
            name: texts(value, module, inside, bound)
            for name, value in given.items()
            if isinstance(value, (ast.Constant, ast.JoinedStr, ast.BinOp))
        }
        found += texts_of_function(home, function, {k: v for k, v in values.items() if v})
    return found
