"""Auth: whether an HTTP request comes from whom it says, and what that one may do.

Separate because every path goes through it, before a byte of the body is parsed.  It must not
know methods or replies.

A failure says nothing: neither its words nor its work tell an unknown key from a wrong
signature.
Source: the authentication section of the RPC reference; ARCHITECTURE.md for TIMESTAMP.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable, Mapping

from api.calls import Caller
from excore_ray.core.catalog import Scope
from excore_ray.core.messages import Credential
from excore_ray.core.reasons import Reason, Refused

SKEW_MAX_MS = 30_000
ALL_SCOPES = int(Scope.READ | Scope.TRADE | Scope.ADMIN)
ANYBODY = Caller(ALL_SCOPES)
AUTHENTICATION_FAILED = Refused(Reason.AUTHENTICATION_FAILED)

_NOBODY = Credential("", secrets.token_hex(32), 0)
_TIMESTAMP = re.compile(rb"[0-9]{1,15}")
_STAMPED = re.compile(rb"[0-9]+\.")  # how what a TIMESTAMP was signed with begins, and no request


def authenticate(
    credential_by_key: Mapping[str, Credential],
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    now_ms: int,
) -> Caller | Refused:
    """The caller who signed `body`, or why there is none.

    headers: names in lower case.  KEY names the credential, SIGN is the lower-case hexadecimal
    HMAC-SHA512 of the body under its secret.  With TIMESTAMP (milliseconds since the epoch) it
    is that of `timestamp + "." + body`, and the clocks may differ by at most 30 s.
    """
    key, sign, stamp = b"", b"", None
    for name, value in headers:
        if name == b"key":
            key = value
        elif name == b"sign":
            sign = value
        elif name == b"timestamp":
            stamp = value
    credential = credential_by_key.get(key.decode("latin-1"), _NOBODY)
    signed = body if stamp is None else b"%b.%b" % (stamp, body)
    genuine = hmac.compare_digest(signature(credential.secret, signed), sign)
    stripped = stamp is None and _STAMPED.match(body) is not None
    if not genuine or stripped or credential is _NOBODY:
        return AUTHENTICATION_FAILED
    if stamp is None:
        return Caller(credential.scopes, key=credential.key)
    # Only who has the secret gets this far, and may be told more.
    if _TIMESTAMP.fullmatch(stamp) is None:
        detail = "TIMESTAMP is not milliseconds since the epoch"
        return Refused(Reason.AUTHENTICATION_FAILED, detail)
    stamp_ms = int(stamp)
    if abs(now_ms - stamp_ms) > SKEW_MAX_MS:
        detail = f"TIMESTAMP is {abs(now_ms - stamp_ms)} ms from the server's clock"
        return Refused(Reason.AUTHENTICATION_FAILED, detail)
    return Caller(credential.scopes, b"%b\n%b\n" % (key, sign), stamp_ms, credential.key)


def signature(secret: str, signed: bytes) -> bytes:
    """The value of SIGN: lower-case hexadecimal HMAC-SHA512."""
    return hmac.digest(secret.encode(), signed, "sha512").hex().encode()
