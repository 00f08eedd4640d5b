"""Verdict: what is wrong between what clients were told and what the journals say.

Separate so that those who compare, each something of its own, agree on how it is said.
"""

from __future__ import annotations

from typing import NamedTuple

from excore_ray.drill.history import Operation

SLACK_US = 100_000  # by so much the clocks of two processes of one machine may differ


class Violation(NamedTuple):
    """One broken promise.  promise: which; what: a sentence with the operation concerned."""

    promise: str
    what: str


def told(operation: Operation) -> str:
    """An operation for people."""
    how = operation.outcome if not operation.code else f"{operation.outcome} {operation.code}"
    asked = f"{operation.method} {operation.params}"
    return f"operation {operation.number} of client {operation.client}, {asked}, {how}"
