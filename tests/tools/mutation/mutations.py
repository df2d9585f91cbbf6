"""Every mutation that cosmic-ray makes of a file, with a name that outlives a change of line numbers.

Left out are only mutations that are no program (they do not compile), that change nothing but a type annotation, or
that are the same text as an earlier one.
"""

import ast
import difflib
import functools
import itertools
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Position = tuple[int, int]
Span = tuple[int, int, str]
"""First line, last line, and what it is."""


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
        """What survivors are called by."""
        return f"{self.file} {self.function}: {self.was} -> {self.becomes}"


@functools.cache
def operators() -> tuple[tuple[str, Any], ...]:
    """All of cosmic-ray's operators but those two that need to be told names of variables."""
    import cosmic_ray.plugins

    classes = ((name, cosmic_ray.plugins.get_operator(name)) for name in cosmic_ray.plugins.operator_names())
    return tuple((name.partition("/")[2], each()) for name, each in classes if not each.arguments())


@dataclass(frozen=True)
class Part:
    """Some whole lines of a file that are a program by themselves. text: without their indentation.

    before, after: the lines around them.
    """

    before: Sequence[str]
    text: str
    after: Sequence[str]
    indentation: str

    def place(self, start: Position) -> Position:
        """A position in the text, in the file."""
        return start[0] + len(self.before), start[1] + len(self.indentation)

    def whole(self, text: str) -> str:
        """The file with another text in place of this one."""
        return "".join([*self.before, textwrap.indent(text, self.indentation), *self.after])


def mutations_of(path: Path) -> Iterator[Mutation]:
    """Every mutation of a file, by operator and then by place."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code

    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    annotations, names, statements = list(_annotations(tree)), list(_names(tree)), list(_statements(tree))
    parts = [(part, list(ast_nodes(get_ast(part.text))), {_meaning(part.text)}) for part in _parts(source, tree)]
    for name, operator in operators():
        for part, nodes, known in parts:
            places = itertools.chain.from_iterable(operator.mutation_positions(node) for node in nodes)
            for occurrence, start in enumerate(part.place(start) for start, _ in places):
                if any(first <= start < last for first, last in annotations):
                    continue
                text = mutate_code(part.text, operator, occurrence)
                meaning = _meaning(text)
                if text is not None and meaning is not None and meaning not in known:
                    known.add(meaning)
                    code = part.whole(text)
                    was, becomes = _changed(source.splitlines(), code.splitlines())
                    line = start[0]
                    function, statement = _innermost(names, line)[2], _innermost(statements, line)[:2]
                    yield Mutation(path.name, line, function, name, was, becomes, code, statement)


def _parts(source: str, tree: ast.Module) -> Iterator[Part]:
    """A file in parts, statements and methods: a mutation costs as much as the text that it is made in."""
    lines = source.splitlines(keepends=True)
    ends = {len(lines), *(node.end_lineno or 0 for node in tree.body)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            methods = [index for index, each in enumerate(node.body) if index and isinstance(each, ast.FunctionDef)]
            ends |= {node.body[index - 1].end_lineno or 0 for index in methods}
    first = 0
    for last in sorted(ends):
        block = lines[first:last]
        code = next((line for line in block if line.strip()), "")
        indentation = code[: len(code) - len(code.lstrip())]
        part = Part(lines[:first], textwrap.dedent("".join(block)), lines[last:], indentation)
        if _meaning(part.text) is not None and part.whole(part.text) == source:
            yield part
            first = last
    if first < len(lines):
        raise ValueError(f"line {first + 1} and those after it are no program by themselves")


def _meaning(code: str | None) -> str | None:
    """The program without its spelling, or None for what is no program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # `is` with a literal is a mutation like any other
        try:
            compile(code or "", "mutated", "exec")
            return ast.dump(ast.parse(code or "")) if code else None
        except SyntaxError:
            return None


def _innermost(spans: Sequence[Span], line: int) -> Span:
    """The span around a line that begins last and is the shortest."""
    return max((each for each in spans if each[0] <= line <= each[1]), key=lambda each: (each[0], -each[1]))


def _changed(before: Sequence[str], after: Sequence[str]) -> tuple[str, str]:
    """The lines that differ, each side as one line."""
    codes = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    changed = [code for code in codes if code[0] != "equal"]
    low, high = changed[0], changed[-1]
    sides = before[low[1] : high[2]], after[low[3] : high[4]]
    was, becomes = (" / ".join(line.strip() for line in side) for side in sides)
    return was, becomes


def _annotations(tree: ast.AST) -> Iterator[tuple[Position, Position]]:
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            found = getattr(node, name, None)
            if isinstance(found, ast.expr):
                yield (found.lineno, found.col_offset), (found.end_lineno or 0, found.end_col_offset or 0)


def _names(tree: ast.AST, prefix: str = "") -> Iterator[Span]:
    """Functions and classes with their decorators; the module around them."""
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
