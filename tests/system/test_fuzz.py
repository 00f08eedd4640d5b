"""A running exchange under fuzz, and the judge of its logs; `-m tests.fuzz --http` goes on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz import outside

pytestmark = pytest.mark.system


def test_two_thousand_bodies_over_http(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    report = outside.run(seed, 2_000, tmp_path)
    assert [(what, case.body[:300]) for what, case in report.failures] == []
    assert report.cases == 2_000
    assert min(report.refused, report.strangers, report.watched, report.log_bytes) > 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("INFO serves\n", []),
        ("ERROR internal error 5\nTraceback (most recent call last):\n", ["http.log: "]),
        ("INFO connected with 0123\n", ["http.log shows a secret"]),
    ],
)
def test_what_a_log_must_not_show_is_found(tmp_path: Path, text: str, found: list[str]) -> None:
    path, report = tmp_path / "http.log", outside.Report()
    path.write_text(text)
    outside.check_logs([path], {"0123"}, report)
    assert len(report.failures) == len(found)
    assert all(what.startswith(f) for (what, _), f in zip(report.failures, found, strict=True))
