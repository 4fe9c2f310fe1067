"""S3 and a plain web server on this machine: one of each for all tests of a process, and faults on demand.

`bucket` is the address of an empty bucket of moto's server, to which the environment of the test leads s3fs, also in
processes that it starts. `buckets.fault` is asked before each request to it: what it returns is the answer instead.
"""

import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Fault = Callable[[str, str], "int | str | None"]
"""Of a method and a path: the code of a refusal (`AccessDenied`), how many bytes come before the end, or nothing."""
REFUSALS = {"AccessDenied": "403 Forbidden", "ExpiredToken": "400 Bad Request"}
KEY, SECRET = "key-of-the-tests", "secret-of-the-tests"


class Buckets:
    """moto's server, with what stands between it and its clients."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import WSGIRequestHandler, make_server

        class Silent(WSGIRequestHandler):
            def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002  werkzeug's own name
                pass

        self.moto = DomainDispatcherApplication(create_backend_app)
        self.fault: Fault | None = None
        self.requests: list[tuple[str, str]] = []
        self.names = itertools.count()
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True, request_handler=Silent)
        self.endpoint = f"http://127.0.0.1:{self.server.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        found = None if self.fault is None else self.fault(method, path)
        if found is None:
            return self.moto(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if isinstance(found, str):
            start_response(REFUSALS[found], [("Content-Type", "application/xml")])
            body = f"<Error><Code>{found}</Code><Message>it says {found}</Message></Error>"
            return [b"" if method == "HEAD" else body.encode()]
        start_response("200 OK", [("Content-Length", str(found + 1000))])
        return self.cut(found)

    def cut(self, count: int) -> Iterator[bytes]:
        yield b"x" * count
        raise ConnectionResetError

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
            "AWS_MAX_ATTEMPTS": "1",
        }


@pytest.fixture(scope="session")
def all_buckets() -> Iterator[Buckets]:
    pytest.importorskip("moto", reason="moto[server] and s3fs are not installed: make setup")
    pytest.importorskip("s3fs", reason="s3fs is not installed: make setup")
    buckets = Buckets()
    yield buckets
    buckets.server.shutdown()


@pytest.fixture
def buckets(all_buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> Iterator[Buckets]:
    import s3fs

    for name, value in all_buckets.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    yield all_buckets
    all_buckets.fault = None


@pytest.fixture(scope="session")
def s3(all_buckets: Buckets) -> Any:
    """s3fs, as somebody else would use it beside us."""
    import s3fs

    options = {"skip_instance_cache": True, "use_listings_cache": False}
    return s3fs.S3FileSystem(endpoint_url=all_buckets.endpoint, key=KEY, secret=SECRET, **options)


@pytest.fixture
def bucket(buckets: Buckets, s3: Any) -> str:
    name = f"bucket-{next(buckets.names)}"
    s3.mkdir(name)
    return f"s3://{name}"


class Served(SimpleHTTPRequestHandler):
    """Python's own: it lists folders as pages, and gives whole files, whatever part was asked for."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address at which a web server gives its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
