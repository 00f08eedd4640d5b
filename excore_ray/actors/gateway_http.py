"""Guarded HTTP: uvicorn's protocol with a bound on how long and how large a request may get.

Separate because uvicorn itself lets a silent or half-sent request stay for ever and takes a
header of any size.  The size of a body is the application's to bound, for it answers for it.
It must not know what a request asks.

Source: client_header_timeout, client_body_timeout and large_client_header_buffers of nginx.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from excore_ray.actors.plan import HttpLimits


class _Phase(enum.Enum):
    """What of a request has arrived."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class HeadTooLarge(Exception):
    """Raised inside the parser, which answers 400 and closes."""


class GuardedProtocol(HttpToolsProtocol):
    """One HTTP connection.  Made by uvicorn, of the class that guarded() returns."""

    limits = HttpLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = _Phase.NOTHING
        self._head_bytes = 0
        self._chunk_is_large = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the transport once."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections_max:
            transport.abort()
        else:
            self._set_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport once, at the end."""
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        if self._phase is _Phase.HEAD:
            self._head_bytes += len(data)
        # A head that came in small pieces is small, so most are never measured.
        self._chunk_is_large = len(data) > self.limits.head_bytes_max
        super().data_received(data)
        if self._phase is _Phase.NOTHING:
            if self._deadline is not None:
                self._clear_deadline()
            return
        if self._phase is _Phase.HEAD and self._head_bytes > self.limits.head_bytes_max:
            self.transport.abort()
        elif self._deadline is None:
            self._set_deadline()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        super().on_message_begin()
        self._phase = _Phase.HEAD
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._chunk_is_large or self._head_bytes > self.limits.head_bytes_max:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self.limits.head_bytes_max:
                raise HeadTooLarge(f"{size} bytes")
        self._phase = _Phase.BODY
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._phase = _Phase.NOTHING
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Called when the rest of the connection is another protocol's."""
        self._phase = _Phase.NOTHING
        super().handle_websocket_upgrade()

    def _set_deadline(self) -> None:
        self._deadline = self.loop.call_later(self.limits.request_s, self._too_slow)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        if self.flow.read_paused:  # it is we who do not read
            self._set_deadline()
        else:
            self.transport.abort()


def guarded(limits: HttpLimits) -> type[GuardedProtocol]:
    """The protocol class with these limits, as uvicorn wants to be given it."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits})
