"""The rules of the house, as tests: who may import whom, what the core must not touch, how long
things may get, and what must not be left lying about.

Each rule reads one file and yields what is wrong with it.  Every rule is held against the whole
tree, and against planted examples, so that a rule which has gone blind is a failing test too.
"""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pytest

from tests.set_order import order_of_sets
from tests.tidy_examples import BREAKING, KEEPING

ROOT = Path(__file__).parents[1]


class May(NamedTuple):
    """What the modules of a place may import, besides the standard library.

    ours: dotted prefixes of our own modules, "*" for any.
    outside: installed packages, "*" for any but ray, which a row must name.
    """

    ours: str = ""
    outside: str = ""


CORE = "excore_ray.core"
BASE = "excore_ray.errors"
STORAGE = f"{BASE} {CORE} excore_ray.storage"
ACTORS = f"{STORAGE} excore_ray.actors analytics"

# A place is a folder, or a file that differs from its folder.  A folder without a row fails.
TREE = {
    ".": May(),
    ".ci": May(),
    "excore_ray": May(),  # so a new file right here needs a row of its own
    "excore_ray/settings.py": May(f"{BASE} {CORE} excore_ray.actors", "msgspec"),
    "excore_ray/serving.py": May("*", "msgspec"),  # a composition root
    "excore_ray/exchange.py": May(
        f"{BASE} {CORE} excore_ray.storage excore_ray.actors", "msgspec ray"
    ),
    "excore_ray/__main__.py": May("*", "* ray"),
    "excore_ray/core": May(CORE, "msgspec sortedcontainers"),
    "excore_ray/storage": May(STORAGE, "msgspec psycopg"),
    "excore_ray/actors": May(ACTORS, "httptools msgspec psutil pyarrow uvicorn uvloop"),
    "excore_ray/actors/archive_answers.py": May(ACTORS, "duckdb msgspec pyarrow"),
    "excore_ray/actors/archive_service.py": May(ACTORS, "duckdb msgspec"),
    "excore_ray/actors/bind.py": May(ACTORS, "msgspec ray"),
    "excore_ray/offline": May(f"{ACTORS} excore_ray.offline", "duckdb msgspec pyarrow"),
    "excore_ray/offline/command.py": May(
        f"{ACTORS} excore_ray.offline excore_ray.serving excore_ray.settings", "rich typer"
    ),
    "excore_ray/drill": May("*", "httpx msgspec psutil rich typer"),  # starts, asks and judges all
    "api": May(f"api {BASE} {CORE} excore_ray.exchange", "httpx msgspec starlette websockets"),
    "api/console": May("api", "msgspec starlette"),
    "analytics": May("analytics", "duckdb fsspec matplotlib pyarrow rich typer"),
    "analytics/sql": May(),
    "tests": May("*", "*"),
    "tests/core": May("*", "*"),
    "tests/storage": May("*", "*"),
    "tests/actors": May("*", "*"),
    "tests/offline": May("*", "*"),
    "tests/drill": May("*", "*"),
    "tests/api": May("*", "*"),
    "tests/analytics": May("*", "*"),
    "tests/simulation": May("*", "*"),
    "tests/system": May("*", "* ray"),
    "tests/fuzz": May("*", "*"),
    "tests/bench": May("*", "* ray"),
    "tests/vectors": May(),
    "tests/vectors/kernel": May(),
    "tests/vectors/kline": May(),
    "tests/vectors/rpc": May(),
}

PACKAGES = ("excore_ray", "api", "analytics")
CORE_STDLIB = set(
    "__future__ abc array bisect binascii collections dataclasses enum functools hashlib heapq"
    " itertools operator re string struct types typing zlib".split()
)
CORE_BANNED_MODULES = set(
    "time datetime random uuid os io pathlib asyncio threading logging".split()
)
CORE_BANNED_CALLS = set("hash id open input print eval exec compile __import__".split())
BANNED_NAMES = {"utils", "util", "common", "helpers", "helper", "types", "misc"}
LINES_MAX, COLUMNS_MAX, FUNCTION_LINES_MAX, PARAMETERS_MAX = 400, 100, 60, 7

# Written so that none of these patterns matches its own text.
LEAKS = {
    "a path of one machine": r"(?<![\w.])/(?:work|root|home)/|[.]{2}/shared\b",
    "the host of a package registry": r"\bpypi[.]org\b|\bpythonhosted[.]org\b|\bnpmjs[.]\w",
    "how it was written": r"(?i)\b(?:clau[d]e|anthropi[c]|opena[i]|(?:chat)?gp[t]|copilo[t]|ll[m]s?"
    r"|language[ ]models?|co-authored[-]by)\b",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Complaints = Iterator[tuple[int, str]]


class Source:
    """One text file of the project: its path from the root, its text, and a Python file's tree."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.lines = text.splitlines()
        self.folder = PurePosixPath(path).parent.as_posix()
        self.suffix = PurePosixPath(path).suffix
        self.tree = ast.parse(text) if self.suffix == ".py" else ast.Module([], [])
        self.nodes = list(ast.walk(self.tree))
        self.ours = self.suffix == ".py" and path.split("/")[0] in PACKAGES
        self.core = self.suffix == ".py" and self.folder == "excore_ray/core"

    def functions(self) -> Iterator[Function]:
        """Every function and method, however deep."""
        return (node for node in self.nodes if isinstance(node, Function))

    def comments(self) -> Iterator[tuple[int, str]]:
        """Line and text of each comment, without its first mark; none for prose and data."""
        if self.suffix == ".py":
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
                if token.type == tokenize.COMMENT:
                    yield token.start[0], token.string[1:]
            return
        marks = {".sql": "--", ".js": "//", ".css": "/*", ".md": "", ".html": "<!--"}
        mark = marks.get(self.suffix, "#")
        for number, line in enumerate(self.lines, 1):
            if mark and line.lstrip().startswith(mark):
                yield number, line.lstrip()[len(mark) :]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full dotted name of all that is imported, at any depth."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = self.path.split("/")[: -node.level] if node.level else []
                base = [*above, *([node.module] if node.module else [])]
                yield from ((node.lineno, ".".join([*base, name.name])) for name in node.names)

    def may(self) -> May:
        """The row for this file."""
        return TREE.get(self.path) or TREE.get(self.folder, May())


# The rules.


def folders_have_a_row(source: Source) -> Complaints:
    if source.folder not in TREE:
        yield 1, f"folder {source.folder} has no row in TREE: say what it is for and may import"


def names_say_what_is_inside(source: Source) -> Complaints:
    for part in PurePosixPath(source.path).with_suffix("").parts:
        if part in BANNED_NAMES:
            yield 1, f"'{part}' says nothing: name the file for its one purpose"


def imports_of_ours_follow_the_table(source: Source) -> Complaints:
    allowed = source.may().ours.split()
    for line, name in source.imports():
        inside = name.split(".")[0] in (*PACKAGES, "tests")
        if (
            inside
            and "*" not in allowed
            and not any(f"{name}.".startswith(f"{a}.") for a in allowed)
        ):
            yield line, f"must not import {name}; its row allows: {' '.join(allowed) or 'nothing'}"


def imports_from_outside_follow_the_table(source: Source) -> Complaints:
    allowed = source.may().outside.split()
    for line, name in source.imports():
        top = name.split(".")[0]
        if top in sys.stdlib_module_names or top in (*PACKAGES, "tests") or top in allowed:
            continue
        if top == "ray" or "*" not in allowed:
            yield line, f"must not import {top}; its row allows: {' '.join(allowed) or 'nothing'}"


def the_core_imports_only_what_is_pure(source: Source) -> Complaints:
    for line, name in source.imports() if source.core else ():
        top = name.split(".")[0]
        if top in CORE_BANNED_MODULES:
            yield line, f"{top} is banned: clock, chance and I/O belong to the shells"
        elif top in sys.stdlib_module_names - CORE_STDLIB:
            yield line, f"{top} is not known to be pure; if it is, add it to CORE_STDLIB"


def the_core_is_exact(source: Source) -> Complaints:
    for node in source.nodes if source.core else ():
        match node:
            case ast.Name(id="float") | ast.Constant(value=float() | complex()):
                yield node.lineno, "no float: quantities are scaled integers"
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield node.lineno, "no true division: use // and say which way it rounds"
            case ast.Call(func=ast.Name(id=name)) if name in CORE_BANNED_CALLS:
                yield node.lineno, f"no {name}(): its result differs from run to run, or is I/O"


def the_core_never_takes_the_order_of_a_set(source: Source) -> Complaints:
    if source.core:
        yield from order_of_sets(source.tree)


def files_are_short(source: Source) -> Complaints:
    if source.suffix in {".py", ".sql", ".js", ".css", ".html"} and len(source.lines) > LINES_MAX:
        yield LINES_MAX, f"{len(source.lines)} lines; at most {LINES_MAX}: split it by purpose"


def lines_are_short(source: Source) -> Complaints:
    if source.suffix in {".py", ".sql", ".js", ".css", ".html", ".toml", ""}:
        for number, line in enumerate(source.lines, 1):
            if len(line) > COLUMNS_MAX:
                yield number, f"{len(line)} columns; at most {COLUMNS_MAX}"


def functions_are_short(source: Source) -> Complaints:
    for function in source.functions() if source.ours else ():
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield function.lineno, f"{function.name}: {lines} lines; at most {FUNCTION_LINES_MAX}"


def functions_take_few_parameters(source: Source) -> Complaints:
    for function in source.functions() if source.ours else ():
        every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        count = sum(arg.arg not in {"self", "cls"} for arg in every)
        if count > PARAMETERS_MAX:
            yield function.lineno, f"{function.name}: {count} parameters; at most {PARAMETERS_MAX}"


def modules_have_a_docstring(source: Source) -> Complaints:
    if source.suffix == ".py" and not (ast.get_docstring(source.tree) or "").strip():
        yield 1, "no module docstring: what it is, why it is separate, what it must not know"


def what_is_public_has_a_docstring(source: Source) -> Complaints:
    bodies = [source.tree.body] if source.ours else []
    while bodies:
        for node in bodies.pop():
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            marks = {ast.unparse(mark).split(".")[-1] for mark in node.decorator_list}
            if not ast.get_docstring(node) and not marks & {"overload", "setter", "deleter"}:
                yield node.lineno, f"{node.name}: no docstring: what it means to the caller"
            if isinstance(node, ast.ClassDef):
                bodies.append(node.body)


def comments_are_no_banners(source: Source) -> Complaints:
    for line, text in source.comments():
        if re.search(r"^[-=*~_#\s]*[-=*~_#]{4}|[-=*~_#]{4}\W*$", text):
            yield line, "a banner: a file that needs one wants to be two files"


def nothing_is_left_for_later(source: Source) -> Complaints:
    for line, text in source.comments():
        if found := re.search(r"\b(TODO|FIXME|XXX)\b", text):
            yield line, f"{found[0]}: do it, or write a decision in ARCHITECTURE.md"


def no_error_is_swallowed(source: Source) -> Complaints:
    for node in source.nodes:
        match node:
            case ast.ExceptHandler(type=None):
                yield (
                    node.lineno,
                    "a bare except also catches the end of the process: name the error",
                )
            case ast.ExceptHandler(body=[ast.Pass() | ast.Expr(value=ast.Constant())]):
                yield node.lineno, "the error is swallowed: handle it, or let it go up"
            case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress")):
                if {ast.unparse(arg) for arg in node.args} & {"Exception", "BaseException"}:
                    yield node.lineno, "every error is swallowed: name the one that is expected"


def nothing_tells_where_it_was_made(source: Source) -> Complaints:
    for number, line in enumerate(source.lines, 1):
        for what, pattern in LEAKS.items():
            if found := re.search(pattern, line):
                yield number, f"{found[0]!r} tells {what}"


def ray_tests_are_marked(source: Source) -> Complaints:
    if source.folder == "tests/system" and PurePosixPath(source.path).name.startswith("test_"):
        marked = re.search(r"^pytestmark\b.*\bpytest\.mark\.system\b", source.text, re.MULTILINE)
        if not marked:
            yield 1, "no 'pytestmark = pytest.mark.system': make check would start Ray"


RULES: list[Callable[[Source], Complaints]] = [
    folders_have_a_row,
    names_say_what_is_inside,
    imports_of_ours_follow_the_table,
    imports_from_outside_follow_the_table,
    the_core_imports_only_what_is_pure,
    the_core_is_exact,
    the_core_never_takes_the_order_of_a_set,
    files_are_short,
    lines_are_short,
    functions_are_short,
    functions_take_few_parameters,
    modules_have_a_docstring,
    what_is_public_has_a_docstring,
    comments_are_no_banners,
    nothing_is_left_for_later,
    no_error_is_swallowed,
    nothing_tells_where_it_was_made,
    ray_tests_are_marked,
]


def project_files() -> Iterable[str]:
    """What git tracks or would track; without git, all that is no product or cache."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        # A checkout may belong to another user than the one who tests it, as in a container.
        git = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
        command = [*git, "--exclude-standard"]
        found = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        return sorted(name for name in found.decode().split("\0") if (ROOT / name).is_file())
    hidden = re.compile(
        r"(?:^|/)(?:\.(?!ci/|gitignore$)|__pycache__/|build/|data/|[^/]*\.egg-info/)"
    )
    names = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file())
    return sorted(name for name in names if not hidden.search(name))


@cache
def sources() -> list[Source]:
    """Every text file of the project, read and parsed once."""
    raw = ((name, (ROOT / name).read_bytes()) for name in project_files())
    return [Source(name, data.decode()) for name, data in raw if b"\0" not in data]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_project_keeps(rule: Callable[[Source], Complaints]) -> None:
    broken = [f"{s.path}:{line}: {what}" for s in sources() for line, what in rule(s)]
    if broken:
        pytest.fail("\n".join(broken), pytrace=False)


def test_the_project_was_found() -> None:
    paths = {source.path for source in sources()}
    assert {"pyproject.toml", "tests/test_tidy.py", "excore_ray/core/__init__.py"} <= paths


def test_every_rule_has_an_example_that_breaks_it() -> None:
    assert {name for name, _, _ in BREAKING} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(("name", "path", "text"), BREAKING)
def test_a_rule_sees(name: str, path: str, text: str) -> None:
    rule = {rule.__name__: rule for rule in RULES}[name]
    assert list(rule(Source(path, text))), f"{name} does not see what is wrong here"


@pytest.mark.parametrize(("path", "text"), KEEPING)
def test_no_rule_minds(path: str, text: str) -> None:
    source = Source(path, text)
    assert [(rule.__name__, *found) for rule in RULES for found in rule(source)] == []
