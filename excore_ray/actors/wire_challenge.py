"""The challenge: how two actors prove to each other that they hold the cluster secret.

Separate from the connection so that who proves what to whom can be read, and attacked in tests,
without any I/O: each side is a generator that yields messages for the peer and is sent the peer's
answers.  It must not know sockets, frames or time.

    client                                    server
    HELLO  nonce, own name, wanted name  ->
                                         <-   HELLO  nonce, own name, the client's name
    PROOF  HMAC("client", both hellos)   ->
                                         <-   PROOF  HMAC("server", both hellos)

A hello has a fixed width, so the two hellos in a row read one way only, and a proof binds the
role, both nonces, both names, the name that was wanted, and the version.  The client proves
itself first: whoever merely reaches an open port is given nothing to guess the secret from.
The challenge keeps strangers out; against somebody who can alter the traffic, use TLS.

Source: the SKID3 scheme of the Handbook of Applied Cryptography, 10.3.2.
"""

from __future__ import annotations

import enum
import hmac
import re
import secrets
import struct
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

VERSION = 1
NAME_BYTES_MAX = 64
SECRET_BYTES_MIN = 16

# The first three fields keep their meaning in every version, so that any two versions can tell
# each other which they are: magic, version, kind of message.
_PREFIX = struct.Struct(">8sHB")
_HELLO = struct.Struct(f">8sHB32s{NAME_BYTES_MAX}s{NAME_BYTES_MAX}s")
_PROOF = struct.Struct(">8sHB32s")
_REFUSED = struct.Struct(">8sHBB")
_MAGIC = b"excore-w"
_KIND_HELLO, _KIND_PROOF, _KIND_REFUSED = 1, 2, 3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


class Refusal(enum.IntEnum):
    """Why a challenge failed, as the refused peer is told."""

    MALFORMED = 1
    VERSION = 2
    NAME = 3
    PROOF = 4
    FULL = 5


_TEXTS = {
    Refusal.MALFORMED: "what came is not the challenge of the wire",
    Refusal.VERSION: f"the two sides speak different versions of the wire, this one {VERSION}",
    Refusal.NAME: "another name was expected at this address",
    Refusal.PROOF: "the two sides hold different cluster secrets",
    Refusal.FULL: "the server has no room for another connection",
}


class Verdict(NamedTuple):
    """How a challenge ended.

    answer: the last message for the peer, empty when there is none.  peer: its proven name, empty
    when it was refused.  refusal, text: why, in the latter case.
    """

    answer: bytes = b""
    peer: str = ""
    refusal: Refusal | None = None
    text: str = ""


Challenge = Generator[bytes, bytes, Verdict]


class _Refused(Exception):
    """The challenge is over: by our own finding, or because the peer said so."""

    def __init__(self, refusal: Refusal, text: str = "", *, told: bool = False) -> None:
        super().__init__(text or _TEXTS[refusal])
        self.refusal = refusal
        self.told = told


def check_identity(name: str, secret: bytes) -> None:
    """Raise ValueError unless `name` can be sent and `secret` is long enough to be one."""
    if not _NAME.fullmatch(name) or len(name) > NAME_BYTES_MAX:
        raise ValueError(f"not a name for the wire: {name!r}")
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"the cluster secret must have at least {SECRET_BYTES_MIN} bytes")


def client_challenge(name: str, peer: str, secret: bytes) -> Challenge:
    """The side that connects: calls itself `name` and talks to nobody but `peer`."""
    ours = _hello(name, peer)
    try:
        theirs = yield ours
        answered, _ = _read_hello(theirs)
        if answered != peer:
            raise _Refused(Refusal.NAME, f"{peer} was wanted, and {answered} answered")
        proof = yield _message(_PROOF, _KIND_PROOF, _proof(secret, b"client", ours, theirs))
        _check_proof(proof, _proof(secret, b"server", ours, theirs))
    except _Refused as error:
        return Verdict(refusal=error.refusal, text=str(error))
    return Verdict(peer=peer)


def server_challenge(name: str, secret: bytes, has_room: Callable[[], bool]) -> Challenge:
    """The side that listens.  has_room: asked once a peer has proven itself."""
    try:
        theirs = yield b""
        client, wanted = _read_hello(theirs)
        if wanted != name:
            raise _Refused(Refusal.NAME, f"{client} looks for {wanted}, and this is {name}")
        ours = _hello(name, client)
        proof = yield ours
        _check_proof(proof, _proof(secret, b"client", theirs, ours))
        if not has_room():
            raise _Refused(Refusal.FULL)
    except _Refused as error:
        answer = b"" if error.told else _message(_REFUSED, _KIND_REFUSED, int(error.refusal))
        return Verdict(answer, refusal=error.refusal, text=str(error))
    return Verdict(_message(_PROOF, _KIND_PROOF, _proof(secret, b"server", theirs, ours)), client)


def _message(layout: struct.Struct, kind: int, *fields: bytes | int) -> bytes:
    return layout.pack(_MAGIC, VERSION, kind, *fields)


def _hello(name: str, peer: str) -> bytes:
    return _message(_HELLO, _KIND_HELLO, secrets.token_bytes(32), name.encode(), peer.encode())


def _proof(secret: bytes, role: bytes, hello_client: bytes, hello_server: bytes) -> bytes:
    return hmac.digest(secret, role + hello_client + hello_server, "sha256")


def _check_proof(body: bytes, expected: bytes) -> None:
    (proof,) = _read(body, _PROOF, _KIND_PROOF)
    if not hmac.compare_digest(proof, expected):
        raise _Refused(Refusal.PROOF)


def _read_hello(body: bytes) -> tuple[str, str]:
    """The name the peer goes by, and the name it wants to talk to."""
    _, *names = _read(body, _HELLO, _KIND_HELLO)
    name, wanted = (field.rstrip(b"\0").decode("ascii", "replace") for field in names)
    if not (_NAME.fullmatch(name) and _NAME.fullmatch(wanted)):
        raise _Refused(Refusal.MALFORMED)
    return name, wanted


def _read(body: bytes, layout: struct.Struct, kind: int) -> tuple[Any, ...]:
    """The fields of a message after its prefix, or _Refused when it is not the one due now."""
    if len(body) < _PREFIX.size or not body.startswith(_MAGIC):
        raise _Refused(Refusal.MALFORMED)
    _, version, came = _PREFIX.unpack_from(body)
    if version != VERSION:
        text = f"the peer speaks version {version} of the wire, this side {VERSION}"
        raise _Refused(Refusal.VERSION, text)
    if came == _KIND_REFUSED and len(body) == _REFUSED.size:
        code = _REFUSED.unpack(body)[3]
        refusal = Refusal(code) if code in _TEXTS else Refusal.MALFORMED
        raise _Refused(refusal, told=True)
    if came != kind or len(body) != layout.size:
        raise _Refused(Refusal.MALFORMED)
    return layout.unpack(body)[3:]
