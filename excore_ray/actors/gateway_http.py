"""Guarded HTTP: uvicorn's protocol with a bound on how long and how large everything may get.

Separate because uvicorn itself lets a silent or half-sent request stay for ever, takes a header
of any size, parses any number of requests in advance, and waits for ever for a client to read.
The size of a body is the application's to bound, for it answers for it.  It must not know what
a request asks; the application tells, in the `state` of a request, whether its caller is known.

It stays with HTTP/1.1 when a client offers to go on in another protocol, as HTTP lets a server do.

Source: client_header_timeout, client_body_timeout, send_timeout, reset_timedout_connection and
large_client_header_buffers of nginx.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from excore_ray.actors import gateway_words as words
from excore_ray.actors.gateway_crowd import Crowd
from excore_ray.actors.plan import HttpLimits

KNOWN = "known"  # what the application sets in `state` when its caller has shown who he is
LINGERING_MAX = 256  # who were refused and may have another moment to read why
LINGER_S = 1.0
SEND_BYTES_MIN = 65_536  # who takes less of a reply within send_s does not read
HEADERS_MAX = 128  # one of a few bytes takes a hundred when it is parsed
LINE_BYTES = 4  # ": " and the end of a header's line


class _Phase(enum.Enum):
    """What of a request has arrived."""

    NOTHING = 0
    HEAD = 1
    BODY = 2


class _Unwanted(Exception):
    """Raised inside the parser, to have it stop."""


class GuardedProtocol(HttpToolsProtocol):
    """One HTTP connection.  Made by uvicorn, of the class that guarded() returns."""

    # With these in its dictionary, that would be too large to share its keys with all others': two
    # kilobytes more for every connection.
    __slots__ = (
        "_beside_bytes",
        "_body_bytes",
        "_body_counted",
        "_chunk_is_large",
        "_deadline",
        "_deadline_of",
        "_deaf",
        "_doubted",
        "_fault",
        "_head_bytes",
        "_phase",
        "_requests",
        "_running",
        "_sending",
        "_unsent_bytes",
        "_unsent_counted",
        "standing",
    )

    limits = HttpLimits()
    crowd = Crowd(limits)
    lingering: set[GuardedProtocol]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.standing: dict[str, Any] = {}  # the `state` of all its requests
        self._running: Any = None  # the request that the application is at, or was at last
        self._phase = _Phase.NOTHING
        self._requests = 0
        self._head_bytes = 0
        self._body_bytes = 0
        self._beside_bytes = 0  # that came after its newest byte and were none of it
        self._body_counted = 0  # of it, in the crowd's sum, when it did not come in one piece
        self._doubted = True  # whether it is one of the crowd's strangers
        self._chunk_is_large = False
        self._deaf = False  # whatever still comes is not for us
        self._fault = words.NO_HTTP  # what to answer when the parser stops
        self._deadline: asyncio.TimerHandle | None = None
        self._deadline_of = (0, _Phase.NOTHING)  # number and phase of the request it was set for
        self._sending: asyncio.TimerHandle | None = None  # looks whether the client reads
        self._unsent_bytes = 0  # when it last looked
        self._unsent_counted = 0  # of it, in the crowd's sum

    # The connection.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by the transport once."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if self.crowd.enter(self, address):
            self._keep_deadline()
        elif len(self.lingering) < LINGERING_MAX:
            self._linger(words.TOO_MANY)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the transport once, at the end."""
        self.crowd.leave(self)
        self.lingering.discard(self)
        self._drop_body()
        self._clear_deadline()
        self._stop_watching()
        if self._running is not None:
            self._running.disconnected = True
        self._unset_keepalive_if_required()  # the base class leaves it after a reset
        super().connection_lost(exc)
        # What was never begun refers to this and this to it, and cycles are collected late.
        self.pipeline.clear()
        self.cycle = self._running = None  # type: ignore[assignment]

    def eof_received(self) -> None:
        """Called by the transport, which then closes when all is sent."""
        self._watch()

    def throw_out(self) -> None:
        """End it now: part of being a Guest."""
        self._drop_body()
        self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        """Called after keep_alive_s without a request."""
        if self.transport.get_write_buffer_size():
            self._watch()  # it is still at the last reply, and has send_s for that
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    # What comes.

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        if self._deaf:
            return
        if self._phase is _Phase.HEAD:
            self._head_bytes += len(data)
        elif self._phase is _Phase.BODY:
            self._beside_bytes += len(data)
        # A head that came in small pieces is small, so most are never measured.
        self._chunk_is_large = len(data) > self.limits.head_bytes_max
        self._unset_keepalive_if_required()
        self._parse(data)
        self._await_more()

    def _await_more(self) -> None:
        """After what came: bound what of a request is there, and have a deadline for the rest."""
        if self._deaf:
            return  # refused meanwhile: it may have the deadline of one who lingers
        phase = self._phase
        if phase is _Phase.NOTHING:
            if self._owes():
                self._clear_deadline()
            else:
                self._keep_deadline()  # blank lines before a request are no request
            return
        held_bytes = self._head_bytes if phase is _Phase.HEAD else self._beside_bytes
        if held_bytes > self.limits.head_bytes_max:
            self._refuse(words.HEAD_TOO_LARGE)
        elif phase is _Phase.BODY and not self._hold_body():
            self._refuse(words.TOO_MUCH)
        else:
            self._keep_deadline()

    def _parse(self, data: bytes) -> None:
        """What the base class does with data, but for offers of another protocol."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._decline(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _decline(self, rest: bytes) -> None:
        """Parse a request again without the offer in its head, for the parser has passed over its
        body.  rest: what came after the head.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._fault = words.NO_TUNNEL
            self.send_400_response("")
            return
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        line = b"%b %b HTTP/%b\r\n" % (method, self.url, version)
        self._parse(line + words.without_offers(self.headers) + b"\r\n" + rest)

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if len(self.pipeline) >= self.limits.pipelined_max:
            # Those before it are answered; the last says that nothing follows.
            self.cycle.keep_alive = False
            self._deaf = True
            self._clear_deadline()
            raise _Unwanted
        super().on_message_begin()
        self.scope["state"] = self.standing
        self._phase = _Phase.HEAD
        self._requests += 1
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, for what follows a body too, which nobody needs."""
        if self._phase is _Phase.HEAD:
            if len(self.headers) >= HEADERS_MAX:
                self._fault = words.HEAD_TOO_LARGE
                raise _Unwanted
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._chunk_is_large or self._head_bytes > self.limits.head_bytes_max:
            size = len(self.url) + sum(
                len(name) + len(value) + LINE_BYTES for name, value in self.headers
            )
            if size > self.limits.head_bytes_max:
                self._fault = words.HEAD_TOO_LARGE
                raise _Unwanted
        if self.parser.should_upgrade():
            return  # it is parsed again
        if self.expect_100_continue and self.parser.get_http_version() == "1.0":
            self.expect_100_continue = False  # it would not understand
        super().on_headers_complete()  # raises when the URL is none: there is no new cycle then
        self._phase = _Phase.BODY
        self._beside_bytes = 0
        if not self.pipeline:
            self._running = self.cycle

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if not self.cycle.response_complete:  # or it is dropped
            self._body_bytes += len(body)
        self._beside_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self.parser.should_upgrade():
            return
        self._phase = _Phase.NOTHING
        self._drop_body()
        if self._doubted and not self.cycle.response_complete:
            self._doubted = False
            self.crowd.clear(self)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called when the parser has stopped."""
        if not self._deaf:
            self._refuse(self._fault)

    # What goes.

    def on_response_complete(self) -> None:
        """Called when a whole reply was handed over."""
        self._running.body = bytearray()  # answered unread, it would stay as long as the connection
        if self._running is self.cycle:
            self._drop_body()
        if self.pipeline:
            self._running = self.pipeline[-1][0]  # the oldest, which is next
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch()
        elif not self._doubted and KNOWN not in self.standing:
            if self.timeout_keep_alive_task is None and not self._running.more_body:
                return  # it has asked the next already
            self._doubted = True
            self.crowd.doubt(self)
            self.crowd.hold(self, 0, self._body_bytes)

    def pause_writing(self) -> None:
        """Called by the transport when much waits to be read by the client."""
        super().pause_writing()
        self._watch()
        if self.crowd.unsent_bytes > self.limits.unsent_bytes_max:
            self.transport.abort()

    def resume_writing(self) -> None:
        """Called by the transport when little does."""
        self._stop_watching()
        super().resume_writing()
        if self.transport.is_closing():
            self._watch()  # nothing else would end it

    # Parts of it.

    def _owes(self) -> bool:
        """Whether there are requests to answer, whole ones or not."""
        return self._running is not None and not self._running.response_complete

    def _refuse(self, reply: bytes) -> None:
        """Answer what is awaited with a refusal and close, once what came before is answered."""
        self._clear_deadline()
        part: Any = self.cycle if self._phase is _Phase.BODY else None
        if self.pipeline and self.pipeline[0][0] is part:
            self.pipeline.popleft()  # the newest: its end will never come
        last = self.pipeline[0][0] if self.pipeline else self._running
        if self._owes() and last is not part:
            last.keep_alive = False
            self._deaf = True
        elif part is not None and part.response_started:
            self.transport.abort()
        elif not self.transport.is_closing():
            self._linger(reply)

    def _linger(self, reply: bytes) -> None:
        """Say it, and give the client a moment to read it: closed at once, it may be lost."""
        self._deaf = True
        self._phase = _Phase.NOTHING
        self.crowd.leave(self)
        self._drop_body()
        if self._running is not None:
            self._running.disconnected = True
            self._running.waiting_for_100_continue = False  # it would be written behind the end
            self._running.message_event.set()
        self.lingering.add(self)
        self.transport.write(reply)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._clear_deadline()
        self._deadline = self.loop.call_later(LINGER_S, self.transport.abort)

    def _keep_deadline(self) -> None:
        """Have a deadline for the part of a request that is awaited."""
        part = (self._requests, self._phase)
        if self._deadline is not None:
            if self._deadline_of == part:
                return
            self._deadline.cancel()
        self._deadline_of = part
        limits = self.limits
        seconds = limits.body_s if self._phase is _Phase.BODY else limits.head_s
        self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.flow.read_paused:  # it is we who do not read
            self._keep_deadline()
        elif self._phase is _Phase.NOTHING:
            self.transport.abort()  # it has said nothing to answer to
        else:
            self._refuse(words.TOO_SLOW)

    def _hold_body(self) -> bool:
        """Count what has come of an unfinished body; False when there is no room for it."""
        added = self._body_bytes - self._body_counted
        self._body_counted = self._body_bytes
        return self.crowd.hold(self, added, self._body_bytes)

    def _drop_body(self) -> None:
        if self._body_counted:
            self.crowd.body_bytes -= self._body_counted
            self._body_counted = 0
        self._body_bytes = 0

    def _watch(self) -> None:
        """See to it that the client reads what waits for it."""
        if self._sending is None and (unsent := self.transport.get_write_buffer_size()):
            self._unsent_bytes = self._unsent_counted = unsent
            self.crowd.unsent_bytes += unsent
            self._sending = self.loop.call_later(self.limits.send_s, self._look)

    def _look(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent > self._unsent_bytes - SEND_BYTES_MIN:
            self.transport.abort()
            return
        self._stop_watching()
        self._watch()

    def _stop_watching(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
            self.crowd.unsent_bytes -= self._unsent_counted
            self._unsent_counted = 0


def guarded(limits: HttpLimits) -> type[GuardedProtocol]:
    """The protocol class of one gateway with these limits, as uvicorn wants to be given it."""
    own = {"limits": limits, "crowd": Crowd(limits), "lingering": set()}
    return type("GuardedProtocol", (GuardedProtocol,), own)
