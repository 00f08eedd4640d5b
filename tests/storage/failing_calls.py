"""System calls of this process that fail from now on, for tests of a disk that does.

SQLite calls the system itself, so nothing in Python can stand between; the kernel's own filter of
system calls can.  It cannot be taken back, so only a child process may use it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

# By machine: system call numbers of what writes and syncs files.
NUMBERS: Final = {
    "x86_64": {"pwrite64": 18, "fsync": 74, "fdatasync": 75},
    "aarch64": {"pwrite64": 68, "fsync": 82, "fdatasync": 83},
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def can_fail() -> bool:
    """Whether this machine is one of those above, with Linux."""
    return os.uname().sysname == "Linux" and os.uname().machine in NUMBERS


def fail(names: list[str], errno: int) -> None:
    """Let the calls `names` do nothing and fail with `errno`; 0: they say that 0 bytes went."""
    numbers = [NUMBERS[os.uname().machine][name] for name in names]
    steps = [(_LOAD_WORD, 0, 0, 0)]  # the number of the call
    for left, number in zip(range(len(numbers) - 1, -1, -1), numbers, strict=True):
        steps.append((_JUMP_IF_EQUAL, left + 1, 0, number))
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | errno)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p).value)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "the filter of system calls was not accepted")
