"""An HTTP proxy before an S3 server that plays faults: errors, broken connections, a store that is away."""

import http.client
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

ANSWER_TIMEOUT_S = 60


@dataclass(frozen=True)
class Request:
    """One request as it came to the proxy: its method, the bucket with the object's key, and the query."""

    method: str
    key: str
    query: str


Fault = Callable[["_Handler"], bool]
"""Does something to a request; returns whether that was its answer, else the request passes."""


class FaultyProxy:
    """An HTTP proxy before an S3 server. Lets everything pass until told otherwise.

    Faults are queued and each is used up by one request: of any kind, or of the method and the part of a key
    that `only` names.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.log: list[Request] = []
        self.headers: dict[str, str] = {}
        """Of the last request."""
        self.most_at_once = 0
        self.keeps_chunk_framing = False
        """Whether to store uploads in aws-chunked form as they come, framing and all, as some stores do."""
        self.ignores_conditions = False
        """Whether to carry out conditional requests as if they were plain, as some stores do."""
        self.delay_s = 0.0
        """How long each request waits before it is passed on."""
        self._faults: deque[tuple[str, str, Fault]] = deque()
        self.turned_away = 0
        """Requests that came while the store was away."""
        self._away_until = 0.0
        self._held_key = ""
        self._let_go = threading.Event()
        self._let_go.set()
        self.n_held = 0
        """Uploads that `hold` has let wait so far."""
        self._at_once = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail_next(
        self, n: int = 1, *, status: int = 503, code: str = "", method: str = "", key: str = "", **fields: str
    ) -> None:
        """Answer the next n requests with an error, its S3 code and further fields in the body."""
        code = code or {500: "InternalError", 503: "SlowDown"}.get(status, "Odd")
        self._add(n, method, key, lambda handler: handler.answer_error(status, code, fields))

    def answer_next(self, body: str, n: int = 1, *, status: int = 200, method: str = "", key: str = "") -> None:
        """Answer the next n requests with this text."""
        self._add(n, method, key, lambda handler: handler.answer(status, body.encode()))

    def cut_next(self, n: int = 1, *, method: str = "GET", key: str = "") -> None:
        """Send half of the body of the next n answers, then close the connection."""
        self._add(n, method, key, lambda handler: handler.forward(cut=True))

    def drop_next(self, n: int = 1, *, method: str = "", key: str = "") -> None:
        """Close the connection of the next n requests without an answer."""
        self._add(n, method, key, lambda handler: handler.drop())

    def drop_answer_to_next(self, n: int = 1, *, method: str = "PUT", key: str = "") -> None:
        """Carry out the next n requests, but close the connection without an answer."""
        self._add(n, method, key, lambda handler: handler.forward(silent=True))

    def delay_next(self, n: int, delay_s: float, *, method: str = "", key: str = "") -> None:
        """Let the next n requests wait."""

        def wait(_: _Handler) -> bool:
            time.sleep(delay_s)
            return False

        self._add(n, method, key, wait)

    def meet_next(self, n: int, *, method: str = "GET", key: str = "") -> None:
        """Let the next n requests wait for each other, which only requests made at once do not do in vain."""
        barrier = threading.Barrier(n, timeout=ANSWER_TIMEOUT_S)

        def meet(_: _Handler) -> bool:
            barrier.wait()
            return False

        self._add(n, method, key, meet)

    def be_away(self, for_s: float) -> None:
        """Close every connection without an answer for so long, from now on."""
        self._away_until = time.monotonic() + for_s

    def hold(self, key: str) -> None:
        """Let every upload under a key with this part wait until `let_go`, so that a job cannot end before."""
        self._held_key, self.n_held = key, 0
        self._let_go.clear()

    def let_go(self) -> None:
        self._let_go.set()

    def count(self, method: str = "", key: str = "") -> int:
        """Requests so far, of a method and a part of a key."""
        return sum(request.method.startswith(method) and key in request.key for request in list(self.log))

    @property
    def faults_left(self) -> int:
        return len(self._faults)

    def forget(self) -> None:
        """Empty the log and the queue of faults, and count from nothing."""
        with self._lock:
            self.log.clear()
            self._faults.clear()
            self.most_at_once = 0

    def _add(self, n: int, method: str, key: str, fault: Fault) -> None:
        with self._lock:
            self._faults.extend([(method, key, fault)] * n)

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The first fault in the queue that is meant for such a request, or None."""
        if time.monotonic() < self._away_until:
            self.turned_away += 1
            return lambda handler: handler.drop()
        with self._lock:
            for entry in self._faults:
                wanted, key, fault = entry
                if method.startswith(wanted) and key in path:
                    self._faults.remove(entry)
                    return fault
        return None

    def wait_if_held(self, method: str, path: str) -> bool:
        """Wait where a request is held; return whether it was."""
        held = method == "PUT" and not self._let_go.is_set() and self._held_key in path
        if held:
            self.n_held += 1
            self._let_go.wait()
        return held

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request as under way."""
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self._lock:
                self._at_once -= 1


class _Handler(BaseHTTPRequestHandler):
    """Passes one connection's requests on to the server, over a connection of its own."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        address = self.proxy.upstream
        self.onward = http.client.HTTPConnection(address.hostname or "", address.port, timeout=ANSWER_TIMEOUT_S)

    def finish(self) -> None:
        self.onward.close()
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # the client went away

    def log_message(self, *_: object) -> None:
        pass

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        fault = self.proxy.take_fault(self.command, url.path)
        with self.proxy.counted():
            self.body = self._read_body()
            if self.proxy.wait_if_held(self.command, url.path):
                fault = self.proxy.take_fault(self.command, url.path)  # the store may have gone away meanwhile
            self.proxy.log.append(Request(self.command, url.path.lstrip("/"), url.query))
            self.proxy.headers = dict(self.headers.items())
            if self.proxy.delay_s:
                time.sleep(self.proxy.delay_s)
            if not (fault and fault(self)):
                self.forward()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(parts)

    def forward(self, *, cut: bool = False, silent: bool = False) -> bool:
        """Pass the request on and the answer back: whole, half of it, or nothing."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        if self.proxy.keeps_chunk_framing and "aws-chunked" in self.headers.get("Content-Encoding", ""):
            headers = {name: value for name, value in headers.items() if not _says_chunked(name)}
        if self.proxy.ignores_conditions:
            headers = {name: value for name, value in headers.items() if name.lower() not in _CONDITIONS}
        self.onward.request(self.command, self.path, body=self.body, headers=headers)
        answer = self.onward.getresponse()
        content = answer.read()
        if silent:
            return self.drop()
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        size = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", size or "0")
        self.end_headers()
        if cut:
            self.wfile.write(content[: len(content) // 2])
            return self.drop()
        self.wfile.write(content)
        return True

    def answer_error(self, status: int, code: str, fields: Mapping[str, str]) -> bool:
        inside = "".join(f"<{name}>{value}</{name}>" for name, value in {"Message": "as played", **fields}.items())
        return self.answer(status, f"<?xml version='1.0'?><Error><Code>{code}</Code>{inside}</Error>".encode())

    def answer(self, status: int, content: bytes) -> bool:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        return True

    def drop(self) -> bool:
        self.wfile.flush()
        self.close_connection = True
        return True


_CONDITIONS = {"if-match", "if-none-match"}
_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive", "expect"}


def _says_chunked(header: str) -> bool:
    name = header.lower()
    return name in {"content-encoding", "x-amz-content-sha256", "x-amz-trailer", "x-amz-decoded-content-length"}
