"""moto's S3 server on a real socket, in which requests can be made to fail and objects to be old."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import S3Backend, s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT = "123456789012"
NAME = "scratch"


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@dataclass
class S3Server:
    url: str = ""
    deleted: list[str] = field(default_factory=list)
    """Keys of deletes that were carried out, as often as they were."""
    before: Callable[[str, str], bool] = lambda method, key: True
    """Called with each request before it is carried out; False: it is answered 500 and not carried out."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._backend: S3Backend = s3_backends[ACCOUNT]["aws"]
        self._backend.reset()
        self._backend.create_bucket(NAME, "us-east-1")

    def put(self, key: str, modified: datetime, content: bytes = b"x") -> None:
        """An object as it would be if it had been written then."""
        self._backend.put_object(NAME, key, content).last_modified = modified.astimezone(UTC).replace(tzinfo=None)

    def keys(self) -> set[str]:
        return set(self._backend.buckets[NAME].keys)

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        key = environ["PATH_INFO"].encode("latin-1").decode().removeprefix(f"/{NAME}").removeprefix("/")
        with self.lock:  # one at a time: what a test does between two requests is between them
            if not self.before(method, key):
                start("500 Internal Server Error", [("content-length", "0")])
                return [b""]
            statuses: list[str] = []

            def started(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
                statuses.append(status)
                return start(status, headers, *more)

            body = list(self._app(environ, started))
            if method == "DELETE" and statuses[0].startswith("204"):
                self.deleted.append(key)
            return body


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """A server with one empty bucket."""
    server = S3Server()
    listening = make_server("127.0.0.1", 0, server, threaded=True, request_handler=Quiet)
    server.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield server
    listening.shutdown()
    thread.join()
    listening.server_close()
