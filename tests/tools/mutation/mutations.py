"""Every mutation that cosmic-ray makes of a file, with a name that outlives a change of line numbers.

Left out are mutations that do not compile, that give the same program as an earlier one, or that change nothing but a
type annotation, the words of an error, or `strict` of `zip`, which only refuses what never comes. In the chain, whose
arrays have two axes, axis -1 does not become 1 either.
"""

import ast
import difflib
import functools
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Position = tuple[int, int]
Span = tuple[int, int, str]  # first line, last line, and what it is


@dataclass(frozen=True)
class Mutation:
    """One mutated file. was, becomes: the line without its indentation."""

    file: str
    line: int
    function: str
    operator: str
    was: str
    becomes: str
    code: str = field(repr=False, compare=False)
    statement: tuple[int, int] = (1, 1)
    """First and last line of the statement that it stands in, without the block of a compound one."""

    @property
    def name(self) -> str:
        return f"{self.file} {self.function}: {self.was} -> {self.becomes}"


@functools.cache
def operators() -> tuple[tuple[str, Any], ...]:
    """All of cosmic-ray's operators but those two that need to be told names of variables."""
    import cosmic_ray.plugins

    classes = ((name, cosmic_ray.plugins.get_operator(name)) for name in cosmic_ray.plugins.operator_names())
    return tuple((name.partition("/")[2], each()) for name, each in classes if not each.arguments())


def mutations_of(path: Path) -> Iterator[Mutation]:
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    left_out, names, statements = list(_left_out(tree)), list(_names(tree)), list(_statements(tree))
    axes = list(_last_axes(tree)) if path.parent.name == "chain" else []
    lines = source.splitlines(keepends=True)
    parts = [(span, list(ast_nodes(get_ast(text))), text, {_meaning(text)}) for span, text in _parts(lines, tree)]
    for name, operator in operators():
        skipped = left_out + (axes if name in SIGNS else [])
        for (first, last), nodes, part, known in parts:
            places = itertools.chain.from_iterable(operator.mutation_positions(node) for node in nodes)
            for occurrence, (line, column) in enumerate((first + at[0], at[1]) for at, _ in places):
                if any(start <= (line, column) < end for start, end in skipped):
                    continue
                text = mutate_code(part, operator, occurrence)
                meaning = _meaning(text)
                if text is not None and meaning is not None and meaning not in known:
                    known.add(meaning)
                    code = "".join([*lines[:first], text, *lines[last:]])
                    was, becomes = _changed(source.splitlines(), code.splitlines())
                    function, statement = _innermost(names, line)[2], _innermost(statements, line)[:2]
                    yield Mutation(path.name, line, function, name, was, becomes, code, statement)


def _parts(lines: Sequence[str], tree: ast.Module) -> Iterator[tuple[tuple[int, int], str]]:
    """A file by its statements, with what stands before each: a mutation costs as much as the text it is made in."""
    ends = [0, *(node.end_lineno or 0 for node in tree.body[:-1]), len(lines)]
    for first, last in itertools.pairwise(ends):
        yield (first, last), "".join(lines[first:last])


def _meaning(code: str | None) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # `is` with a literal is a mutation like any other
        try:
            compile(code or "", "mutated", "exec")
            return ast.dump(ast.parse(code or "")) if code else None
        except SyntaxError:
            return None


def _innermost(spans: Sequence[Span], line: int) -> Span:
    return max((each for each in spans if each[0] <= line <= each[1]), key=lambda each: (each[0], -each[1]))


def _changed(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    codes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changed = [code for code in codes if code[0] != "equal"]
    low, high = changed[0], changed[-1]
    sides = before[low[1] : high[2]], after[low[3] : high[4]]
    return tuple(" / ".join(line.strip() for line in side) for side in sides)


def _left_out(tree: ast.AST) -> Iterator[tuple[Position, Position]]:
    for node in ast.walk(tree):
        found = [getattr(node, name, None) for name in ("annotation", "returns")]
        found += [node.exc] if isinstance(node, ast.Raise) else []
        found += [node.value] if isinstance(node, ast.keyword) and node.arg == "strict" else []
        yield from (_span(each) for each in found if isinstance(each, ast.expr))


SIGNS = ("ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_USub")


def _last_axes(tree: ast.AST) -> Iterator[tuple[Position, Position]]:
    """Every -1 of `axis=-1` and `.shape[-1]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "axis":
            yield _span(node.value)
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith(".shape"):
            yield _span(node.slice)


def _span(node: ast.expr) -> tuple[Position, Position]:
    return (node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)


def _names(tree: ast.AST, prefix: str = "") -> Iterator[Span]:
    if not prefix:
        yield 1, 10**9, "module"
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield _first_line(node), node.end_lineno or 0, prefix + node.name
            yield from _names(node, f"{prefix}{node.name}.")


def _statements(tree: ast.AST) -> Iterator[Span]:
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.ExceptHandler):
            block = getattr(node, "body", None)
            last = block[0].lineno - 1 if block else node.end_lineno or 0
            yield _first_line(node), max(last, node.lineno), type(node).__name__


def _first_line(node: ast.stmt | ast.ExceptHandler) -> int:
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
