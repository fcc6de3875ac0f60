"""moto's S3 on a free port of this machine: a server of the real protocol, whose requests are counted and can fail."""

from __future__ import annotations

import hashlib
import logging
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

import pyarrow.fs as pafs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_REGION": "us-east-1"}
_FAULTS = ("500 InternalError", "503 SlowDown", "reset")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came.

    Attributes:
        kind: `put`, `get`, `head`, `delete` or `post` of an object, `list` of a bucket.
        key: the object, or the prefix that is listed.
        answer: 0 where the connection was cut.
    """

    kind: str
    key: str
    answer: int


@dataclass
class ObjectStore:
    """The server.

    Attributes:
        url: its address.
        requests: all that came, in order.
        failing: share of the requests that are answered with an error or cut off, drawn by their number.
        refusal: an error of S3 that answers every request, such as `403 AccessDenied`.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    failing: float = 0.0
    refusal: str = ""
    _number: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def environment(self) -> dict[str, str]:
        """What a process needs to find the server."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    def bucket(self, name: str) -> str:
        """A new bucket; its address."""
        filesystem = pafs.S3FileSystem(
            access_key="testing", secret_key="testing", region="us-east-1",
            endpoint_override=self.url, allow_bucket_creation=True,
        )  # fmt: skip
        filesystem.create_dir(name)
        self.requests.clear()
        return f"s3://{name}"

    def count(self, kind: str, part_of_key: str = "") -> int:
        """Requests of a kind whose key holds a text."""
        return sum(one.kind == kind and part_of_key in one.key for one in self.requests)

    def answer(self, application: Any, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Count a request, and let it fail or pass it on."""
        with self._guard:
            self._number += 1
            number = self._number
        kind, key = _what(environ)
        fault = self.refusal or self._fault(number)
        if fault == "reset":
            self.requests.append(Request(kind, key, 0))
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError("cut off by the test")
        if fault:
            status, _, code = fault.partition(" ")
            self.requests.append(Request(kind, key, int(status)))
            # What is left unread would be taken for the connection's next request.
            sent = environ["wsgi.input"]
            sent.read() if environ.get("wsgi.input_terminated") else sent.read(int(environ.get("CONTENT_LENGTH") or 0))
            body = f"<Error><Code>{code}</Code><Message>as the test wants</Message></Error>".encode()
            start(fault, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [] if kind == "head" else [body]

        def noting(status: str, *rest: Any) -> Any:
            self.requests.append(Request(kind, key, int(status[:3])))
            return start(status, *rest)

        answered: Iterable[bytes] = application(environ, noting)
        return answered

    def _fault(self, number: int) -> str:
        drawn = hashlib.sha256(f"fault {number}".encode()).digest()
        if int.from_bytes(drawn[:4], "big") / 2**32 >= self.failing:
            return ""
        return _FAULTS[drawn[4] % len(_FAULTS)]


def _what(environ: WSGIEnvironment) -> tuple[str, str]:
    """The kind of a request, and the object or prefix that it is about, without the bucket."""
    _, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
    kind, query = environ["REQUEST_METHOD"].lower(), parse_qs(environ["QUERY_STRING"])
    if kind == "get" and not key:
        return "list", query.get("prefix", [""])[0]
    return kind, key


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """The server, for the time of the block."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    store = ObjectStore()
    application = DomainDispatcherApplication(create_backend_app)

    def counted(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return store.answer(application, environ, start)

    server = make_server("127.0.0.1", 0, counted, threaded=True, request_handler=MotoRequestHandler)
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="object store", daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
