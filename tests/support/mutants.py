"""Mutants of a module: its source with one small fault each. What people read is left alone.

The operators are the usual ones. Text is left out: docstrings, annotations, f-strings, what an error or a warning
says, and any string with a space in it.
"""

from __future__ import annotations

import ast
import copy
import difflib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Mutant", "mutants"]

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
#: Calls whose strings are there to be read.
_TELLING = {"warn", "warning", "info", "debug", "hint", "write", "print", "progress_bar", "_log", "skipped"}

Node = ast.expr | ast.stmt


@dataclass(frozen=True)
class Mutant:
    """A module with one fault."""

    path: str  #: of the module, such as "ctspine1k/files/raw.py"
    line: int  #: of what was changed, from 1
    function: str  #: that it is in, such as "Catalog.where"; "" at the top of the module
    starts: int | None  #: the line at which that function's code starts; None if it is run by the import
    operator: str
    before: str
    after: str  #: the source

    @property
    def changes(self) -> tuple[str, ...]:
        """The lines that it changes, as a diff has them, without their indentation."""
        lines = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), n=0, lineterm="")
        return tuple(
            f"{line[0]} {line[1:].strip()}".rstrip()
            for line in lines
            if line[:3] not in ("---", "+++", "@@ ")
        )

    @property
    def name(self) -> str:
        """Where it is: it stays the same where other lines of the module change."""
        return f"{self.path} {self.function}".strip()


@dataclass(frozen=True)
class _Within:
    """What encloses a node."""

    names: tuple[str, ...] = ()
    starts: int | None = None
    is_text: bool = False  #: strings here are there to be read


def mutants(path: str, source: str) -> list[Mutant]:
    """Return all mutants of a module, in the order of its lines."""
    found = []
    lines = source.splitlines(keepends=True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line.encode()))
    encoded = source.encode()

    def at(position: Position) -> int:
        return offsets[position[0] - 1] + position[1]

    for (first, last), within, operator, text in _faults(ast.parse(source), _Within()):
        start, end = at(first), at(last)
        if not text and encoded[end : end + 1] == b",":
            end += 1  # of the argument that is dropped
        after = (encoded[:start] + text.encode() + encoded[end:]).decode()
        place = ".".join(within.names)
        found.append(Mutant(path, first[0], place, within.starts, operator, source, after))
    return sorted(found, key=lambda mutant: mutant.line)


Position = tuple[int, int]  # line from 1, and bytes of it that are before
Fault = tuple[tuple[Position, Position], _Within, str, str]


def _span(node: Node | ast.keyword) -> tuple[Position, Position]:
    return (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)


def _faults(node: ast.AST, within: _Within) -> Iterator[Fault]:
    """Yield what may be changed in a node and below: where, what encloses it, how, and what stands there then."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return  # a docstring
    if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
        return
    if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
        return
    inner = _inside(node, within)
    if isinstance(node, ast.expr):
        for operator, changed in _of_expression(node, within):
            text = ast.unparse(changed)
            yield _span(node), within, operator, text if isinstance(changed, ast.Constant) else f"({text})"
        if isinstance(node, ast.Call) and _may_drop(node, within):
            for keyword, following in itertools.zip_longest(node.keywords, node.keywords[1:]):
                if keyword.arg == "strict":
                    continue  # without it, it is False: the same mutant as that of its constant
                start, end = _span(keyword)
                yield (start, _span(following)[0] if following else end), within, "argument", ""
    if isinstance(node, ast.stmt):
        for operator, part, text in _of_statement(node):
            yield _span(part), within, operator, text
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_cast_to(node, child):
                yield from _faults(child, inner)


def _inside(node: ast.AST, within: _Within) -> _Within:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        starts = min([node.lineno, *(one.lineno for one in node.decorator_list)])
        is_function = isinstance(node, ast.FunctionDef)
        return _Within(
            (*within.names, node.name),
            starts if is_function else within.starts,
            within.is_text or node.name == "__str__",
        )
    is_telling = isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and _called(node) in _TELLING)
    return _Within(within.names, within.starts, within.is_text or is_telling)


def _is_cast_to(node: ast.AST, child: ast.AST) -> bool:
    """Whether a child is the type of `typing.cast`: an annotation."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "cast"
        and child is node.args[0]
    )


def _called(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _may_drop(call: ast.Call, within: _Within) -> bool:
    """Whether arguments of a call may be dropped: not those of what is there to be read."""
    return not within.is_text and _called(call) not in _TELLING


def _of_expression(node: ast.expr, within: _Within) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.Compare):
        for number, compared in enumerate(node.ops):
            yield "comparison", _with(node, ops=_replaced(node.ops, number, _COMPARED[type(compared)]()))
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and, or", _with(node, op=other)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield "sign", node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED and not _is_text(node):
        yield "arithmetic", _with(node, op=_COMPUTED[type(node.op)]())
    elif isinstance(node, ast.Constant):
        yield from _of_constant(node, within)
    elif isinstance(node, ast.IfExp) and not isinstance(node.test, ast.Compare):
        yield "not", _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Call) and len(node.args) > 1 and _may_drop(node, within):
        yield "argument", _with(node, args=node.args[:-1])


def _is_text(node: ast.BinOp) -> bool:
    """Whether strings are joined or formatted, or types."""
    return any(
        isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and not _is_number(part.value))
        for part in (node.left, node.right)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of_constant(node: ast.Constant, within: _Within) -> Iterator[tuple[str, ast.expr]]:
    value = node.value
    if isinstance(value, bool):
        yield "constant", ast.Constant(not value)
    elif isinstance(value, int | float):
        yield "constant", ast.Constant(value + 1)
    elif isinstance(value, str | bytes) and not within.is_text:
        empty, other, space = ("", "XX", " ") if isinstance(value, str) else (b"", b"XX", b" ")
        if space not in value:
            yield "string", ast.Constant(value + other if value else other + empty)


def _of_statement(node: ast.stmt) -> Iterator[tuple[str, Node, str]]:
    if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield "return", node.value, "None"
    if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Compare):
        yield "not", node.test, f"(not {ast.unparse(node.test)})"
    if isinstance(node, ast.Expr | ast.Assign | ast.AugAssign | ast.Raise | ast.Delete) and not (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and _called(node.value) in _TELLING - {"warn", "write"}
    ):
        yield "statement", node, "pass"
    if isinstance(node, ast.Break | ast.Continue):
        yield "loop", node, "continue" if isinstance(node, ast.Break) else "break"


def _with(node: ast.expr, **fields: object) -> ast.expr:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _replaced(values: list[ast.cmpop], number: int, value: ast.cmpop) -> list[ast.cmpop]:
    return [*values[:number], value, *values[number + 1 :]]
