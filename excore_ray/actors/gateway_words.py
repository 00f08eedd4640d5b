"""Words of HTTP: what a server says to those it refuses, and a head without what it declines.

Separate because they are bytes, known without any connection.
"""

from __future__ import annotations

from http import HTTPStatus

# Headers that offer to go on in another protocol.  They are for the next hop alone.
_OFFERS = frozenset((b"upgrade", b"http2-settings"))


def refusal(status: HTTPStatus, code: int, message: str) -> bytes:
    """A whole reply with an error object of the RPC, after which the connection is closed."""
    body = b'{"error":{"code":%d,"message":"%b"},"result":null,"id":null}' % (
        code,
        message.encode(),
    )
    again = "retry-after: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{again}connection: close\r\n\r\n"
    )
    return head.encode() + body


TOO_MANY = refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, 3, "service unavailable: too many connections are open"
)
TOO_MUCH = refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, 3, "service unavailable: too many large requests arrive"
)
NO_HTTP = refusal(HTTPStatus.BAD_REQUEST, 1, "invalid argument: request: not HTTP")
HEAD_TOO_LARGE = refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, 1, "invalid argument: headers: too large"
)
NO_TUNNEL = refusal(
    HTTPStatus.METHOD_NOT_ALLOWED, 1, "invalid argument: request: CONNECT is for proxies"
)
TOO_SLOW = refusal(HTTPStatus.REQUEST_TIMEOUT, 1, "invalid argument: request: sent too slowly")


def without_offers(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The lines of headers, without those that offer another protocol.

    A server may pass over such an offer.  Source: RFC 9110, 7.8, Upgrade.
    """
    kept = [(name, value) for name, value in headers if name not in _OFFERS]
    return b"".join(
        b"%b: %b\r\n" % (name, _kept_tokens(value) if name == b"connection" else value)
        for name, value in kept
    )


def _kept_tokens(connection: bytes) -> bytes:
    tokens = [token.strip() for token in connection.split(b",")]
    return b", ".join(token for token in tokens if token.lower() not in _OFFERS)
