"""An object store that speaks S3, in a process of its own, for the tests of a lake that lies there.

Of its own, because its libraries warn of much, and because it then ends as a store does that goes
down: by its process id, with connections open.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import fsspec
import fsspec.config
import pytest
from s3fs import S3FileSystem

ROOT = Path(__file__).parents[2]


class Server:
    """A running server.  url: where it listens."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        self._child = child
        self.url = child.stdout.readline().strip()
        assert self.url, "the server has ended before it listened"

    def end(self) -> None:
        """End it, and wait until it has."""
        self._child.kill()
        self._child.wait()


@contextmanager
def running() -> Iterator[Server]:
    """An empty store on a free port, ended with the block."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.analytics.s3_server"]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=nowhere, text=True
    ) as child:
        server = Server(child)
        try:
            yield server
        finally:
            server.end()


@contextmanager
def reached(server: Server) -> Iterator[None]:
    """Whoever opens s3:// gets to the server, with credentials that are nobody's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.upper().startswith(("AWS_", "FSSPEC_")):
                patch.delenv(name)
        # Neither the machine's files nor its metadata service must be asked for any.
        for name, value in {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        for name in ("s3", "s3a"):
            patch.delitem(fsspec.config.conf, name, raising=False)
        # A store that is down shall not be asked for long.
        patch.setattr(S3FileSystem, "retries", 1)
        # Those of an earlier server are kept by fsspec, and know only that one.
        S3FileSystem.clear_instance_cache()
        try:
            yield
        finally:
            S3FileSystem.clear_instance_cache()


def bucket() -> str:
    """The URL of a new bucket."""
    name = f"lake-{uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


def serve() -> None:
    """Serve until standard input ends, which it does when the parent has ended."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, True, request_handler=WSGIRequestHandler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    serve()
