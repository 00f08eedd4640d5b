"""Reads the vectors under tests/vectors.  Separate so that no test knows their packing."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from tests.core.kernel import Message

VECTORS = Path(__file__).parents[1] / "vectors"
NORMAL = VECTORS / "kernel" / "mebw_normal_s23_1M.csv.xz"


def load(name: str) -> Any:
    """A JSON file."""
    return json.loads((VECTORS / name).read_bytes())


def read_messages(path: Path, count_max: int | None = None) -> list[Message]:
    """Kernel messages of a .csv or .csv.xz file, the first `count_max` or all of them."""
    with _opened(path) as lines:
        return [_message(line) for line in islice(lines, count_max)]


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if path.suffix == ".xz":
        with lzma.open(path, "rt", encoding="ascii") as lines:
            yield lines
    else:
        with path.open(encoding="ascii") as lines:
            yield lines


def _message(line: str) -> Message:
    kind, side, ioc, qty, order_id, price = map(int, line.split(","))
    return kind, side, ioc, qty, order_id, price
