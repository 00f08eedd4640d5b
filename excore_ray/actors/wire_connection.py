"""One connection of the wire: frames over any asyncio transport, once the challenge is passed.

Separate from the wire so that TCP, TLS and the in-memory transport run the very same code.
It must not know addresses, redialling or what a body says.

    frame = u32 length of the body | u64 request id | body        (big endian)

Frames sent in one turn of the loop leave as one write: measured against a write per frame, that
costs a lone round trip nothing and takes a third of the CPU when many are under way.  What a
handler sends while it is being given frames leaves when it is done with what was read at once.

Source: the length-prefixed framing of HTTP/2 (RFC 9113, 4.1), without its streams.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING, Protocol, cast

from excore_ray.actors.wire_challenge import Challenge, Refusal, Verdict
from excore_ray.errors import FrameTooLarge, WireClosed, WireError, WireOverloaded, WireRefused

if TYPE_CHECKING:
    from excore_ray.actors.wire import Handler, Limits

HEADER = struct.Struct(">IQ")
_FLUSH_BYTES = 64 * 1024  # more than this is written before the turn ends, so `writable` is true
_ids = itertools.count(1)


def report_failure(task: asyncio.Task[None]) -> None:
    """Tell the loop's exception handler about a background task that ended by a bug of ours."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        context = {"message": "a task of the wire failed", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)


class FrameReader:
    """Cuts what arrives into frames, copying each body once when it arrived in one piece.

    bytes_max: the longest body accepted; may be changed between two frames.
    too_large: the length announced by the frame that broke it, else 0.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.too_large = 0
        self._held = bytearray()  # the beginning of a frame
        self._need = HEADER.size  # how much of it there must be before it can be looked at again

    def read(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (request id, body) of every frame that `data` completes.

        Stops before the body of a frame that is too large; nothing may be read after that.
        """
        start, size, header = 0, len(data), HEADER.size
        held = self._held
        while held:
            fill = data[start : start + self._need - len(held)]
            held += fill
            start += len(fill)
            if len(held) < self._need:
                return
            length, request_id = HEADER.unpack_from(held)
            if not self._accepts(length):
                return
            self._need = header + length
            if len(held) == self._need:
                body = bytes(memoryview(held)[header:])
                held.clear()
                yield request_id, body
        need = header
        while size - start >= header:
            length, request_id = HEADER.unpack_from(data, start)
            if not self._accepts(length):
                return
            need = header + length
            if size - start < need:
                break
            body = data[start + header : start + need]
            start += need
            need = header
            yield request_id, body
        if start < size:
            held += memoryview(data)[start:]
            self._need = need

    def _accepts(self, length: int) -> bool:
        if length > self.bytes_max:
            self.too_large = length
        return not self.too_large


class Owner(Protocol):
    """The server or link a connection belongs to; it is told before the handler is."""

    def opened(self, connection: FramedConnection) -> None:
        """The peer has proven itself."""

    def lost(self, connection: FramedConnection, reason: str) -> None:
        """An opened connection is over."""


class FramedConnection(asyncio.Protocol):
    """A connection as `Connection` in the wire describes it, driven by an asyncio transport.

    error: why the connection is over, None while it is not; then nothing more is delivered.
    gone: done when the transport is closed and `disconnected` has been called.
    address: the host the peer connected from, for the log.
    An exception out of the handler is our own bug: it goes to the exception handler of the loop,
    which is the actor's to set, and costs the connection.
    """

    def __init__(
        self, handler: Handler, owner: Owner, challenge: Challenge, limits: Limits
    ) -> None:
        self.id = next(_ids)
        self.name = ""
        self.address = "an unknown address"
        self.refusal: Refusal | None = None
        self.error: WireError | None = None
        self._loop = asyncio.get_running_loop()
        self._settled: asyncio.Future[None] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._handler = handler
        self._owner = owner
        self._challenge = challenge
        self._limits = limits
        self._frames = FrameReader(limits.stranger_frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._queue: list[bytes] = []  # headers and bodies of this turn
        self._queued_bytes = 0
        self._flush_due = False
        self._receiving = False
        self._writable = True
        self._paused = False
        self._held = False
        self._linger: asyncio.TimerHandle | None = None

    @property
    def writable(self) -> bool:
        """False above the high-water mark of unsent bytes, and when the connection is over."""
        return self._writable and self.error is None

    async def open(self, attaching: Awaitable[None]) -> None:
        """Await a transport and the challenge; then `name` is set, or `error` and all is over.

        attaching: runs this protocol over a transport, or raises OSError.
        """
        timeout_ms = self._limits.handshake_timeout_ms
        attached = False
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await attaching
                attached = True
                await self._settled
        except OSError as error:
            self.drop(WireClosed(str(error) or f"silent for {timeout_ms} ms"))
        finally:
            if not self.name:
                self.drop(WireClosed("given up before the challenge was over"))
            if not attached and not self.gone.done():
                # uvloop closes the transport of a cancelled attempt and does not say so.
                self.gone.set_result(None)

    def send(self, body: bytes, request_id: int = 0) -> None:
        """Queue one frame, see `Connection.send`."""
        transport = self._transport
        if self.error is not None or transport is None or not self.name:
            raise WireClosed(f"no connection to {self.name or 'the peer'}: {self.error}")
        length = len(body)
        if length > self._limits.frame_bytes_max:
            raise FrameTooLarge(
                f"a frame of {length} bytes; at most {self._limits.frame_bytes_max} may be sent"
            )
        unsent = self._queued_bytes + transport.get_write_buffer_size()
        if unsent + HEADER.size + length > self._limits.unsent_bytes_max:
            raise WireOverloaded(f"{unsent} bytes wait for {self.name} to take them")
        self._enqueue(body, request_id)

    def pause_reading(self) -> None:
        """Stop taking frames in, see `Connection.pause_reading`."""
        self._paused = True
        self._apply_pause()

    def resume_reading(self) -> None:
        """Take frames in again."""
        self._paused = False
        self._apply_pause()

    def hold(self, held: bool) -> None:
        """The owner's own pause, which ends independently of the handler's."""
        self._held = held
        self._apply_pause()

    def close(self, reason: str = "") -> None:
        """Send what is queued, then close, see `Connection.close`."""
        self._finish(WireClosed(reason or "closed by this side"), flush=True)

    def drop(self, error: WireError) -> None:
        """Close at once; what was not sent yet is lost."""
        self._finish(error, flush=False)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the transport once."""
        self._transport = cast(asyncio.Transport, transport)
        # Now: of a closed transport uvloop cannot tell it, and raises, when the peer was gone
        # before the transport was made.
        peer = transport.get_extra_info("peername")
        if peer:
            self.address = str(peer[0])
        if self.error is not None:
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=self._limits.unsent_bytes_high)
        first = next(self._challenge)
        if first:
            self._enqueue(first)

    def data_received(self, data: bytes) -> None:
        """Called by the transport with whatever has arrived."""
        received = self._handler.received
        self._receiving = True
        try:
            for request_id, body in self._frames.read(data):
                if self.error is not None:
                    break  # asked before the first, too: TLS still reads while it closes
                if self.name:
                    received(self, request_id, body)
                else:
                    self._answer(body)
        except Exception as error:
            context = {"message": "a handler of the wire failed", "exception": error}
            self._loop.call_exception_handler(context | {"protocol": self})
            self.drop(WireClosed(f"the handler failed: {error!r}"))
        finally:
            self._receiving = False
        if self._frames.too_large:
            text = f"announced a frame of {self._frames.too_large} bytes"
            limit = self._frames.bytes_max
            self.drop(FrameTooLarge(f"{self.name or 'a stranger'} {text}; at most {limit}"))
        elif self._queue and not self._flush_due:
            self._flush()

    def eof_received(self) -> None:
        """Called when the peer will send no more: the wire knows no half-closed connections."""
        self.drop(WireClosed("closed by the peer"))

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the transport once, at the end."""
        if self._linger is not None:
            self._linger.cancel()
        self.drop(WireClosed(str(error) if error else "closed by the peer"))
        if not self.gone.done():
            self.gone.set_result(None)

    def pause_writing(self) -> None:
        """Called when unsent bytes rise above the high-water mark."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called when the transport has sent most of what waited."""
        self._writable = True

    def _answer(self, body: bytes) -> None:
        """Carry the challenge one message further."""
        try:
            message = self._challenge.send(body)
        except StopIteration as end:
            self._conclude(end.value)
        else:
            self._enqueue(message)

    def _conclude(self, verdict: Verdict) -> None:
        if verdict.answer:
            self._enqueue(verdict.answer)
        if verdict.refusal is not None:
            self.refusal = verdict.refusal
            self._finish(WireRefused(verdict.text), flush=True)
            return
        self.name = verdict.peer
        self._frames.bytes_max = self._limits.frame_bytes_max
        if not self._settled.done():
            self._settled.set_result(None)
        self._owner.opened(self)
        self._handler.connected(self)

    def _enqueue(self, body: bytes, request_id: int = 0) -> None:
        self._queue.append(HEADER.pack(len(body), request_id))
        self._queue.append(body)
        self._queued_bytes += HEADER.size + len(body)
        if self._queued_bytes >= _FLUSH_BYTES:
            self._flush()
        elif not (self._receiving or self._flush_due):
            self._flush_due = True
            self._loop.call_soon(self._flush_turn)

    def _flush_turn(self) -> None:
        self._flush_due = False
        if self._queue:
            self._flush()

    def _flush(self) -> None:
        queue, self._queue = self._queue, []
        self._queued_bytes = 0
        if self._transport is not None:
            self._transport.writelines(queue)

    def _apply_pause(self) -> None:
        if self._transport is None or self.error is not None:
            return
        if self._paused or self._held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _finish(self, error: WireError, *, flush: bool) -> None:
        """The one way to an end: say why to whoever waits, and close the transport."""
        if self.error is not None:
            return
        self.error = error
        if not self._settled.done():
            self._settled.set_result(None)
        if self.name:
            self._loop.call_soon(self._tell, str(error))
        queue, transport = self._queue, self._transport
        self._queue, self._queued_bytes = [], 0
        if transport is None:
            self.gone.set_result(None)
        elif flush:
            if queue:
                transport.writelines(queue)
            transport.close()
            # A peer that reads no more must not keep a closed connection for ever.
            linger_s = self._limits.linger_timeout_ms / 1000
            self._linger = self._loop.call_later(linger_s, transport.abort)
        else:
            transport.abort()

    def _tell(self, reason: str) -> None:
        self._owner.lost(self, reason)
        self._handler.disconnected(self, reason)
