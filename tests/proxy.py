"""A TCP proxy that does to a connection what networks do.

::

    with Proxy("127.0.0.1", 5432) as proxy:
        engine = create_engine(f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/postgres")
        proxy.lose_answer_to_commit()

Each fault holds until ``heal()``, except the ones that cut at a COMMIT, which strike once. Bytes are counted from the
moment that a fault is set, over all connections, those already open among them.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Literal, Self

# What PostgreSQL's and MariaDB's drivers send to commit ends so, whatever the framing before it.
COMMIT = re.compile(rb"(?:^|\W)COMMIT;?\0?\Z")
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Listens on ``port`` of 127.0.0.1 and forwards to ``host``:``upstream``."""

    def __init__(self, host: str, upstream: int) -> None:
        self._target = (host, upstream)
        self._pipes: list[_Pipe] = []
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self.port = 0
        self.accepted = 0
        self.commits_lost = 0
        self.latency = 0.0
        self.holes = False
        self.left_up: int | None = None
        self.left_down: int | None = None
        self.commit_to_lose: Literal["request", "answer"] | None = None

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._deafen()
        self.drop()

    def refuse(self) -> None:
        """New connections are refused; open ones go on (see ``drop``)."""
        self._deafen()

    def blackhole(self) -> None:
        """New connections are accepted; nothing is forwarded any more, on no connection, and nothing fails."""
        self.holes = True

    def delay(self, seconds: float) -> None:
        """Everything arrives ``seconds`` later, in each direction."""
        self.latency = seconds

    def cut(self, *, up: int | None = None, down: int | None = None) -> None:
        """Resets a connection after so many more bytes to the server, or from it; the bytes before pass."""
        self.left_up, self.left_down = up, down

    def lose_answer_to_commit(self) -> None:
        """The next COMMIT reaches the server and is carried out; its answer is lost and the connection reset."""
        self.commit_to_lose = "answer"

    def lose_commit(self) -> None:
        """The connection is reset before the next COMMIT reaches the server."""
        self.commit_to_lose = "request"

    def drop(self) -> None:
        """Resets all open connections."""
        with self._lock:
            pipes, self._pipes = self._pipes, []
        for pipe in pipes:
            pipe.reset()

    def heal(self) -> None:
        """Ends all faults. Connections that hung in a black hole are dropped: bytes of theirs are lost."""
        self.latency, self.left_up, self.left_down, self.commit_to_lose = 0.0, None, None, None
        if self.holes:
            self.holes = False
            self.drop()
        if self._listener is None:
            self._listen()

    def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), name=f"proxy-{self.port}", daemon=True).start()

    def _deafen(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone leaves the accepting thread, and with it the port, open.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                client.close()
                continue
            server.settimeout(None)
            pipe = _Pipe(self, client, server)
            with self._lock:
                self._pipes.append(pipe)
            pipe.start()


class _Pipe:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._answer_lost = False
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        for pump in (self._pump_up, self._pump_down):
            threading.Thread(
                target=self._until_closed, args=(pump,), name=f"proxy-{self._proxy.port}", daemon=True
            ).start()

    def reset(self) -> None:
        """The client sees ECONNRESET, not an orderly end."""
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self._close()

    def _close(self) -> None:
        for end in (self._client, self._server):
            # Wakes the other pump, which waits in recv().
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)
            end.close()

    def _until_closed(self, pump: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            pump()
        self._close()

    def _pump_up(self) -> None:
        proxy = self._proxy
        while data := self._client.recv(65536):
            if proxy.commit_to_lose and COMMIT.search(data):
                lost, proxy.commit_to_lose = proxy.commit_to_lose, None
                proxy.commits_lost += 1
                if lost == "request":
                    self.reset()
                    return
                self._answer_lost = True
            data, proxy.left_up, cut = self._pass(data, proxy.left_up)
            if data:
                self._server.sendall(data)
            if cut:
                self.reset()
                return

    def _pump_down(self) -> None:
        proxy = self._proxy
        while data := self._server.recv(65536):
            if self._answer_lost:
                # Only now is the server done with the COMMIT: "committed, but nobody knows" is true.
                self.reset()
                return
            data, proxy.left_down, cut = self._pass(data, proxy.left_down)
            if data:
                self._client.sendall(data)
            if cut:
                self.reset()
                return

    def _pass(self, data: bytes, left: int | None) -> tuple[bytes, int | None, bool]:
        """What may pass of ``data``, how many bytes may pass after it, and whether the connection is to be cut then."""
        if self._proxy.latency:
            time.sleep(self._proxy.latency)
        if self._proxy.holes:
            return b"", left, False
        if left is None:
            return data, None, False
        return data[:left], max(left - len(data), 0), len(data) >= left
