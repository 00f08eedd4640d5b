"""The exception tree is the one its docstring draws, and survives a trip between processes."""

from __future__ import annotations

import inspect
import pickle

import pytest

from excore_ray import errors
from excore_ray.errors import ExcoreError

ALL_ERRORS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


def drawn() -> dict[str, str]:
    """Each name in the docstring's tree, and the name above it."""
    above: list[tuple[int, str]] = []
    found: dict[str, str] = {}
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        name = line.lstrip(" │├└─").split(" ")[0]
        depth = len(line) - len(line.lstrip(" │├└─"))
        if not (name == "ExcoreError" or line.lstrip(" │").startswith(("├", "└"))):
            continue
        while above and above[-1][0] >= depth:
            above.pop()
        found[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    assert drawn() == {kind.__name__: kind.__mro__[1].__name__ for kind in ALL_ERRORS}


@pytest.mark.parametrize("kind", ALL_ERRORS)
def test_an_exception_keeps_its_message_and_kind_between_processes(kind: type[ExcoreError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what, where, what to do")))
    assert type(again) is kind
    assert str(again) == "what, where, what to do"
