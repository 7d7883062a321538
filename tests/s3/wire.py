"""Wire: an HTTP proxy between an S3 client and its server, which spoils requests as networks and servers do.

::

    with Wire(server_port) as wire:
        storage = S3Storage(..., endpoint_url=wire.endpoint)
        wire.spoil(3, "lost")               # the third request from now is carried out, and its answer is lost

``requests`` are all that came, as ``"PUT /bucket/key"``. Each fault holds for its one request, or with ``for_good`` for
all from there on, until ``heal()``.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self, get_args

Fault = Literal["500", "503", "refused", "hang", "late", "lost", "truncated", "corrupt"]
"""- ``500``, ``503``: the proxy answers InternalError, SlowDown, and the server hears nothing
- ``refused``: the connection is closed, and the server hears nothing
- ``hang``: no answer until ``heal()``, and the server hears nothing
- ``late``: no answer, and the server hears of it at ``heal()``
- ``lost``: the server does it, and the connection is closed instead of an answer
- ``truncated``: the server does it, and half of the answer's body arrives
- ``corrupt``: one byte of the request's body is another one
"""

FAULTS: tuple[Fault, ...] = get_args(Fault)
_CODES = {"500": "InternalError", "503": "SlowDown"}
_OF_ONE_CONNECTION = {"connection", "expect", "transfer-encoding", "keep-alive"}


class Wire:
    """Listens on ``port`` of 127.0.0.1 and forwards to ``upstream``."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.requests: list[str] = []
        self.spoiled = 0
        self._faults: list[_Due] = []
        self._lock = threading.Lock()
        self._healed = threading.Event()
        self._late: list[threading.Thread] = []

    def __enter__(self) -> Self:
        wire = self

        class Handler(_Handler):
            def respond(self) -> None:
                wire._serve(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name=f"wire-{self.port}", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        self._server.shutdown()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def spoil(self, nth: int, fault: Fault, method: str | None = None, *, for_good: bool = False) -> None:
        """Spoil the ``nth`` request from now, of one ``method`` or of any."""
        with self._lock:
            self._healed = threading.Event()
            self._faults.append(_Due(nth, fault, method, for_good))

    def heal(self) -> None:
        """No more faults. What hangs is closed, and what is late arrives: it is done when this returns."""
        with self._lock:
            self._faults.clear()
            late, self._late = self._late, []
            self._healed.set()
        for thread in late:
            thread.join(30)

    def _serve(self, handler: _Handler) -> None:
        with self._lock:
            self.requests.append(f"{handler.command} {handler.path}")
            found = [fault.fault for fault in self._faults if fault.is_due(handler.command)]  # all of them count
            due = found[0] if found else None
            self.spoiled += due is not None
            healed = self._healed
            if due == "late":
                self._late.append(threading.current_thread())
        body = handler.body()
        match due:
            case "500" | "503":
                code = _CODES[due]
                said = f"<Error><Code>{code}</Code><Message>spoiled by the test</Message></Error>".encode()
                handler.answer(int(due), [("Content-Type", "application/xml")], said)
            case "refused":
                handler.close_connection = True
            case "hang":
                healed.wait()
                handler.close_connection = True
            case "late":
                healed.wait()
                self._forward(handler, body)
                handler.close_connection = True
            case "lost":
                self._forward(handler, body)
                handler.close_connection = True
            case "truncated":
                status, headers, said = self._forward(handler, body)
                handler.answer(status, headers, said, send=len(said) // 2)
            case "corrupt":
                handler.answer(*self._forward(handler, _with_another_byte(body)))
            case None:
                handler.answer(*self._forward(handler, body))

    def _forward(self, handler: _Handler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=60)
        try:
            # The host is signed: the server is told the one that the client knows.
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in _lasting(handler.headers.items()):
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return answer.status, list(_lasting(answer.getheaders())), answer.read()
        finally:
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def respond(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.respond()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, send: int | None = None) -> None:
        """All at once, so that no part of it waits for an acknowledgement; only ``send`` bytes of the body."""
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers_with(b"" if self.command == "HEAD" else body[:send])
        self.close_connection = self.close_connection or send is not None

    def end_headers_with(self, body: bytes) -> None:
        self._headers_buffer += [b"\r\n", body]
        self.flush_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        pass


class _Due:
    """Counts requests."""

    def __init__(self, nth: int, fault: Fault, method: str | None, for_good: bool) -> None:
        self.fault = fault
        self._left = nth
        self._method = method
        self._for_good = for_good

    def is_due(self, method: str) -> bool:
        if self._method in (None, method):
            self._left -= 1
            return self._left == 0 or (self._for_good and self._left < 0)
        return False


def _lasting(headers: Any) -> Iterator[tuple[str, str]]:
    return ((name, value) for name, value in headers if name.lower() not in _OF_ONE_CONNECTION)


def _with_another_byte(body: bytes) -> bytes:
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :] if body else body
