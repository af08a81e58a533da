"""A wire tap: it stands between an SDK and the mirror, passes every byte on and records it.

This is how "the same bytes as sent straight to a sink" is made exact. Payloads carry times and
random ids, so two runs of one SDK never send the same bytes; but the SDK cannot tell the tap from
a sink, hence what is recorded here *is* what it sends straight to a sink, and the same run,
connection behaviour included (keep-alive, chunks as they are flushed, Expect), drives the mirror.

Bytes are passed on in the pieces in which they arrived. A piece is recorded before it is passed
on, so that no reply can be heard before its request.
"""

import socket
import threading

from wire import Malformed, Message, take


class Exchange:
    """One recorded request and, once it is there, its reply."""

    def __init__(self, request: Message) -> None:
        self.request = request
        self.reply: Message | None = None


class Tap:
    """A listener on a free port of the loopback whose connections are tapped lines to `target`."""

    def __init__(self, target: int) -> None:
        self.exchanges: list[Exchange] = []
        self.problems: list[str] = []
        self.connections = 0
        self.changed = threading.Condition()
        self._target = target
        self._open = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def settle(self, seconds: float) -> bool:
        """Wait until the SDK, which must have exited, has closed all lines and has all replies."""
        with self.changed:
            return self.changed.wait_for(
                lambda: self._open == 0 and all(exchange.reply for exchange in self.exchanges),
                seconds,
            )

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sdk, _ = self._listener.accept()
            except OSError:
                return
            try:
                mirror = socket.create_connection(("127.0.0.1", self._target))
            except OSError as error:
                self.problems.append(f"the mirror does not accept connections: {error}")
                sdk.close()
                continue
            for end in (sdk, mirror):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.changed:
                self.connections += 1
                self._open += 1
            line = _Line(self)
            threading.Thread(target=self._requests, args=(line, sdk, mirror), daemon=True).start()
            threading.Thread(target=self._replies, args=(line, mirror, sdk), daemon=True).start()

    def _requests(self, line: "_Line", sdk: socket.socket, mirror: socket.socket) -> None:
        _pump(sdk, mirror, line.heard_request)
        with self.changed:
            line.end_of_requests()
            self._open -= 1
            self.changed.notify_all()

    def _replies(self, line: "_Line", mirror: socket.socket, sdk: socket.socket) -> None:
        _pump(mirror, sdk, line.heard_reply)
        line.end_of_replies()


class _Line:
    """What was heard on one connection; the k-th final reply answers the k-th request."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self._requests, self._replies = bytearray(), bytearray()
        self._unanswered: list[Exchange] = []

    def heard_request(self, piece: bytes) -> None:
        with self._tap.changed:
            self._requests += piece
            while request := self._take(self._requests):
                exchange = Exchange(request)
                self._unanswered.append(exchange)
                self._tap.exchanges.append(exchange)

    def heard_reply(self, piece: bytes) -> None:
        with self._tap.changed:
            self._replies += piece
            self._sort_replies(ended=False)

    def end_of_requests(self) -> None:
        if self._requests:
            piece = bytes(self._requests[:200])
            self._tap.problems.append(f"the SDK's connection ended inside a request: {piece!r}")

    def end_of_replies(self) -> None:
        with self._tap.changed:
            if self._replies:
                self._sort_replies(ended=True)
            if self._replies:
                piece = bytes(self._replies[:200])
                self._tap.problems.append(f"the mirror closed inside a reply: {piece!r}")

    def _sort_replies(self, ended: bool) -> None:
        method = self._unanswered[0].request.method if self._unanswered else "POST"
        while reply := self._take(self._replies, method, ended):
            if reply.status.startswith("1"):
                continue  # 100 Continue comes before the request is complete.
            if not self._unanswered:
                self._tap.problems.append(f"a reply to no request: {reply.start_line}")
                continue
            self._unanswered.pop(0).reply = reply
            method = self._unanswered[0].request.method if self._unanswered else "POST"
            self._tap.changed.notify_all()

    def _take(self, buffer: bytearray, method: str = "", ended: bool = False) -> Message | None:
        try:
            return take(buffer, method, ended)
        except Malformed as error:
            self._tap.problems.append(f"malformed bytes on the SDK's connection: {error}")
            buffer.clear()
            return None


def _pump(source: socket.socket, target: socket.socket, heard) -> None:
    """Pass bytes on until the source ends, then pass the end on."""
    try:
        while piece := source.recv(65536):
            heard(piece)
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side is gone: an SDK that exits may reset its idle connections. Cut the other too.
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
