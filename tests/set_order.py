"""Finds code that takes its order from a set, which is another one in every process.

Separate from the other rules because it needs to know which names hold sets: it reads
annotations and assignments, without following calls.  So it misses a set that comes out of a
function; the comparison of state hashes between processes is the net below it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

COMBINING = {"union", "intersection", "difference", "symmetric_difference"}
# These take what they are given in the order it comes.
ORDERED_CALLS = set("list tuple iter next enumerate zip map filter dict deque array islice".split())
ORDERED_METHODS = set("join extend fromkeys writelines".split())
# These come to the same result in any order.
ORDERLESS_CALLS = set("sorted set frozenset len sum min max any all".split())

SCOPES = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
Comprehension = ast.ListComp | ast.GeneratorExp | ast.DictComp


def order_of_sets(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and complaint for each place where the order of a set decides something."""
    attributes = set(_set_attributes(tree))
    for scope in ast.walk(tree):
        if isinstance(scope, SCOPES | ast.Module):
            yield from _Scope(scope, attributes).complaints()


def _set_attributes(tree: ast.Module) -> Iterator[str]:
    """Names of attributes that some class of the module declares or assigns as sets."""
    nowhere = _Scope(ast.Module([], []), set())
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for field in node.body:
                match field:
                    case ast.AnnAssign(target=ast.Name(id=name), annotation=kind) if _is_set_type(
                        kind
                    ):
                        yield name
        match node:
            case ast.AnnAssign(target=ast.Attribute(attr=name), annotation=kind) if _is_set_type(
                kind
            ):
                yield name
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if nowhere.is_set(
                value
            ):
                yield name


def _is_set_type(annotation: ast.expr | None) -> bool:
    if isinstance(annotation, ast.BinOp):
        return _is_set_type(annotation.left) or _is_set_type(annotation.right)
    if isinstance(annotation, ast.Subscript):
        return _is_set_type(annotation.value)
    name = ast.unparse(annotation).split(".")[-1] if annotation else ""
    return name in {"set", "frozenset", "Set", "AbstractSet", "MutableSet"}


class _Scope:
    """The statements of one function or of the module, without those of functions inside."""

    def __init__(self, scope: ast.AST, attributes: set[str]) -> None:
        self.attributes = attributes
        self.names: set[str] = set()
        self.nodes = list(_own_nodes(scope))
        for node in self.nodes:
            match node:
                case ast.arg(arg=name, annotation=kind) if _is_set_type(kind):
                    self.names.add(name)
                case ast.AnnAssign(target=ast.Name(id=name), annotation=kind) if _is_set_type(kind):
                    self.names.add(name)
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if self.is_set(value):
                    self.names.add(name)
                case ast.NamedExpr(target=ast.Name(id=name), value=value) if self.is_set(value):
                    self.names.add(name)

    def is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.Call(func=ast.Attribute(attr=method)) if method in COMBINING:
                return True
            case ast.Call(func=ast.Attribute(attr="copy", value=value)):
                return self.is_set(value)
            case ast.BinOp(op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub()):
                return any(self.is_set(side) or _is_keys(side) for side in (node.left, node.right))
            case ast.IfExp(body=one, orelse=other):
                return self.is_set(one) or self.is_set(other)
            case ast.Name(id=name):
                return name in self.names
            case ast.Attribute(attr=name):
                return name in self.attributes
        return False

    def complaints(self) -> Iterator[tuple[int, str]]:
        orderless = {
            id(argument)
            for node in self.nodes
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ORDERLESS_CALLS
            for argument in node.args
        }
        for node in self.nodes:
            if id(node) in orderless:
                continue
            for taken in self._taken_in_order(node):
                if self.is_set(taken):
                    yield taken.lineno, f"the order of the set {ast.unparse(taken)}: sort it first"

    def _taken_in_order(self, node: ast.AST) -> list[ast.expr]:
        match node:
            case ast.For() | ast.AsyncFor():
                return [node.iter]
            case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
                return [loop.iter for loop in node.generators]
            case ast.YieldFrom(value=value) | ast.Starred(value=value):
                return [value]
            case ast.Assign(targets=[ast.Tuple() | ast.List()], value=value):
                return [value]
            case ast.Call(func=ast.Name(id=name)) if name in ORDERED_CALLS:
                return node.args
            case ast.Call(func=ast.Attribute(attr=name)) if name in ORDERED_METHODS:
                return node.args
            case ast.Call(func=ast.Attribute(attr="pop", value=value), args=[]):
                return [value]
        return []


def _is_keys(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".keys")


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, SCOPES):
            waiting.extend(ast.iter_child_nodes(node))
