"""Small files that break one rule of tests/test_tidy.py each, and files that only look like it.

Separate so that the rules can be read without them.
"""

from __future__ import annotations

CORE = "excore_ray/core/x.py"
SHELL = "excore_ray/actors/x.py"
DOC = '"""A module."""\n'


def _function(body: str) -> str:
    return f"{DOC}def f(a: int) -> None:\n    'It does.'\n    " + body.replace("\n", "\n    ")


def _rows(rule: str, path: str, *texts: str) -> list[tuple[str, str, str]]:
    """`~` parts words that this file must not contain itself."""
    return [(rule, path, text.replace("~", "")) for text in texts]


_SETS = (
    "for x in {1, 2}: f(x)",
    "for x in set(y): f(x)",
    "z = [x for x in frozenset(y)]",
    "z = {x: 1 for x in {v for v in y}}",
    "z = list({1, 2})",
    "z = tuple(set(y))",
    "z = ','.join({'a', 'b'})",
    "z = list(a.keys() & b.keys())",
    "z = [*{1, 2}]",
    "z = {1, 2}.pop()",
    "a, b = {1, 2}",
    "z = list(set(a) if a else {1})",
    "z = list(a.union(b))",
    "def f(a: set[int]):\n    return list(a)",
    "def f(a: frozenset[int] | None):\n    for x in a: g(x)",
    "def f():\n    a = set()\n    return [x for x in a]",
    "def f():\n    a: set[int] = g()\n    yield from a",
    "class A:\n    ids: set[int]\n    def f(self):\n        for x in self.ids: g(x)",
    "def f(self):\n    self.ids = set()\n\ndef g(self):\n    return list(self.ids)",
    "def f(self):\n    self.i: set[int] = h()\n\ndef g(self):\n    return iter(self.i)",
)

BREAKING = [
    *_rows("folders_have_a_row", "excore_ray/core/new/x.py", DOC),
    *_rows("folders_have_a_row", "docs/x.md", "Text.\n"),
    *_rows("names_say_what_is_inside", "api/utils.py", DOC),
    *_rows("names_say_what_is_inside", "excore_ray/helpers/x.py", DOC),
    *_rows(
        "imports_of_ours_follow_the_table",
        CORE,
        "import excore_ray.storage.journal",
        "from excore_ray import errors",
        "from excore_ray.storage import journal",
        "from ..storage import journal",
        "def f():\n    from api import rpc",
    ),
    *_rows(
        "imports_of_ours_follow_the_table",
        "excore_ray/storage/x.py",
        "import excore_ray.actors.wire",
    ),
    *_rows(
        "imports_of_ours_follow_the_table", SHELL, "import api.app", "import excore_ray.exchange"
    ),
    *_rows(
        "imports_of_ours_follow_the_table", "excore_ray/errors.py", "import excore_ray.settings"
    ),
    *_rows("imports_of_ours_follow_the_table", "excore_ray/new.py", "import excore_ray.core.book"),
    *_rows(
        "imports_of_ours_follow_the_table",
        "api/x.py",
        "from excore_ray.actors import wire",
        "from excore_ray import storage",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import excore_ray.actors.wire",
    ),
    *_rows(
        "imports_of_ours_follow_the_table",
        "analytics/x.py",
        "import excore_ray.core.units",
        "import api",
    ),
    *_rows("imports_of_ours_follow_the_table", "excore_ray/exchange.py", "import tests.core"),
    *_rows(
        "imports_from_outside_follow_the_table", CORE, "import duckdb", "from ray import remote"
    ),
    *_rows(
        "imports_from_outside_follow_the_table", SHELL, "import ray", "import starlette.routing"
    ),
    *_rows(
        "imports_from_outside_follow_the_table", "api/x.py", "import ray.actor", "import duckdb"
    ),
    *_rows("imports_from_outside_follow_the_table", "tests/core/test_x.py", "import ray"),
    *_rows(
        "the_core_imports_only_what_is_pure",
        CORE,
        *(f"import {name}" for name in "time datetime random uuid os io pathlib asyncio".split()),
        *("import threading", "from logging import getLogger", "import os.path", "import socket"),
    ),
    *_rows(
        "the_core_is_exact",
        CORE,
        *("x = 1.5", "x = 1e9", "x = float(y)", "def f(a: float): ...", "x = a / b", "x /= 2"),
        *("x = hash(y)", "x = id(y)", "x = open(y)", "x = 2j"),
    ),
    *_rows("the_core_never_takes_the_order_of_a_set", CORE, *_SETS),
    *_rows("files_are_short", "tests/core/test_x.py", DOC + "x = 1\n" * 400),
    *_rows("files_are_short", "analytics/sql/x.sql", "SELECT 1;\n" * 401),
    *_rows("lines_are_short", "tests/test_x.py", DOC + "x = '" + "y" * 95 + "'"),
    *_rows(
        "functions_are_short",
        SHELL,
        _function("x = 1\n" * 59),
        "async " + _function("\n" * 58 + "x = 1")[len(DOC) :],
    ),
    *_rows("functions_take_few_parameters", SHELL, "def f(a, b, c, d, /, e, f, *, g, h): ..."),
    *_rows(
        "functions_take_few_parameters",
        SHELL,
        "class A:\n    def f(self, a, b, c, d, e, f, g, h): ...",
    ),
    *_rows(
        "modules_have_a_docstring", "tests/test_x.py", "x = 1", "", '""" """', "# Not one.\nx = 1"
    ),
    *_rows(
        "what_is_public_has_a_docstring",
        SHELL,
        "def f(): ...",
        "async def f(): ...",
        "class A: ...",
        "class A:\n    'It is.'\n    def f(self): ...",
        "class A:\n    'It is.'\n    @property\n    def f(self): ...",
        "class A:\n    'It is.'\n    class B: ...",
    ),
    *_rows(
        "comments_are_no_banners",
        SHELL,
        *("# ----", "#####", "# ==== Reads", "x = 1  # Reads ----"),
    ),
    *_rows("comments_are_no_banners", "analytics/sql/x.sql", "------\n"),
    *_rows("comments_are_no_banners", "Makefile", "# ===== targets =====\n"),
    *_rows("nothing_is_left_for_later", SHELL, "# TODO: all", "x = 1  # FIXME", "#XXX"),
    *_rows("nothing_is_left_for_later", "api/console/x.js", "// TODO\n"),
    *_rows(
        "no_error_is_swallowed",
        "tests/test_x.py",
        "try:\n    f()\nexcept ValueError:\n    pass",
        "try:\n    f()\nexcept (ValueError, KeyError) as e:\n    ...",
        "try:\n    f()\nexcept:\n    raise",
        "with contextlib.suppress(KeyError, Exception):\n    f()",
    ),
    *_rows(
        "nothing_tells_where_it_was_made",
        "README.md",
        *("see /ro~ot/notes", "(/wo~rk/main)", '"/ho~me/me/x"', "../sha~red/x.md"),
        *("https://py~pi.org/simple", "files.python~hosted.org"),
        *("by Cla~ude", "an L~LM", "a language mo~del", "Co-authored~-by: x", "Chat~G~PT"),
    ),
    *_rows("ray_tests_are_marked", "tests/system/test_x.py", DOC, DOC + "# pytestmark"),
]

KEEPING = [
    (
        CORE,
        f"{DOC}from excore_ray.core import book\nimport msgspec\nfrom collections import abc",
    ),
    (CORE, _function("for x in sorted({1, 2}):\n    g(x)")),
    (
        CORE,
        _function(
            "b = set()\nreturn a in b and len(b) and sum(x for x in b) and sorted(x for x in b)"
        ),
    ),
    (CORE, _function("b = {x for x in {1, 2}}\nreturn a // 2 + len(b)")),
    (CORE, _function("for x in {1: 2}:\n    g(x)\nfor y in a.keys():\n    g(y)")),
    (
        CORE,
        f"{DOC}def f(a: list[int]) -> None:\n    'It does.'\n    g(a.pop(), list(a), self.hash())",
    ),
    (SHELL, _function("x = 1\n" * 57 + "x = 2")),
    (SHELL, f"{DOC}class _A:\n    def f(self): ...\n\n\ndef _g(): ..."),
    (SHELL, f"{DOC}class A:\n    'It is.'\n    def __init__(self, a, b, c, d, e, f, g): ..."),
    (
        SHELL,
        f"{DOC}# A range such as 1--2, a rule -> event, and x == y are no banners.\nx = '# ----'",
    ),
    (
        SHELL,
        f"{DOC}from excore_ray.core import book\nimport excore_ray.storage.journal\nimport time",
    ),
    (
        SHELL,
        _function(
            "try:\n    g()\nexcept KeyError:\n    return None\nwith suppress(KeyError):\n    g()"
        ),
    ),
    ("excore_ray/actors/bind.py", f"{DOC}import ray"),
    (
        "excore_ray/__main__.py",
        f"{DOC}import ray\nimport duckdb\nimport api.app\nfrom excore_ray import core",
    ),
    ("api/x.py", f"{DOC}from excore_ray.exchange import Exchange\nfrom starlette import routing"),
    (
        "tests/core/test_x.py",
        f"{DOC}import hypothesis\nfrom excore_ray.core import book\ndef test_x(): ...",
    ),
    ("tests/system/test_x.py", f"{DOC}import ray\npytestmark = [pytest.mark.system]"),
    (
        "README.md",
        "Get https://example.org/home/x; a gateway works; ./work/ is yours; copilots.\n----\n",
    ),
    ("analytics/sql/x.sql", "-- Bars of one hour.\nSELECT a --b\n"),
]
