"""User id -> shard.  Separate because every part must agree on it for ever."""

from __future__ import annotations


def shard_of(user: int, shards: int) -> int:
    """The shard, 0..shards-1, that keeps the accounts of `user`."""
    return user % shards
