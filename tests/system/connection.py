"""Connection: one keep-alive connection to an exchange, cheap enough to have dozens at work.

Separate from `api.client`, which sends again what got lost: here every request is sent once, so a
test knows exactly what was acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any
from urllib.parse import urlsplit

from api.auth import signature

Item = tuple[Any, ...]  # method, *params
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Connection:
    """Made by connect().  status: of HTTP, of the last reply."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str, secret: str
    ) -> None:
        self.status = 0
        self._reader = reader
        self._writer = writer
        self._key = key
        self._secret = secret

    async def ask(self, method: str, *params: Any) -> dict[str, Any]:
        """The whole reply to one request.  Raises OSError or EOFError when there is none."""
        reply: dict[str, Any] = await self._post(_envelope(1, method, params))
        assert reply["id"] in (1, None), reply
        return reply

    async def batch(self, items: list[Item]) -> list[dict[str, Any]]:
        """The replies to up to 1000 requests.  Raises as `ask` does."""
        replies: list[dict[str, Any]] = await self._post(
            [_envelope(number, method, params) for number, (method, *params) in enumerate(items)]
        )
        assert [reply["id"] for reply in replies] == list(range(len(items))), replies
        return replies

    def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def _post(self, content: Any) -> Any:
        body = json.dumps(content, separators=(",", ":")).encode()
        stamp = str(time.time_ns() // 1_000_000).encode()
        sign = signature(self._secret, b"%b.%b" % (stamp, body))
        head = (
            b"POST / HTTP/1.1\r\nHost: exchange\r\nKEY: %b\r\nSIGN: %b\r\nTIMESTAMP: %b\r\n"
            b"Content-Length: %d\r\n\r\n" % (self._key.encode(), sign, stamp, len(body))
        )
        self._writer.write(head + body)
        reply_head = await self._reader.readuntil(b"\r\n\r\n")
        self.status = int(reply_head.split(b" ", 2)[1])
        length = _LENGTH.search(reply_head)
        assert length is not None, reply_head
        return json.loads(await self._reader.readexactly(int(length[1])))


async def connect(url: str, key: str, secret: str) -> Connection:
    """A connection to the exchange at `url`, signing all it sends."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 22)
    return Connection(reader, writer, key, secret)


def _envelope(number: int, method: str, params: Any) -> dict[str, Any]:
    return {"id": number, "method": method, "params": list(params)}
