"""A stand-in for Sentry: it records every request byte for byte and answers like Relay.

Each answer carries an id of its own, so that a reply seen by an SDK can be traced to the one
delivery it was made from. To a request for the crash-report dialog it answers as Sentry's web part
does, with a script (`dialog.js`) that posts to the very URL from which it came.
"""

import json
import re
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from wire import Malformed, Message, take

DIALOG = Path(__file__).parent / "dialog.js"

# Relay's status and content type where they are not 200 and JSON. Its body is empty in some of
# these cases; here it is an id all the same.
ANSWERS = (
    (r"\S+ \S+/cron/|\S+ \S+/integration/vercel/", "202 Accepted", "text/plain"),
    (r"\S+ \S+/attachments/", "201 Created", "text/plain"),
    (r"\S+ \S+/(minidump|unreal)/", "200 OK", "text/plain"),
    (r"GET \S+/store/", "200 OK", "image/gif"),
    ("", "200 OK", "application/json"),
)


@dataclass(frozen=True)
class Delivery:
    """A request that reached a sink, and what it was answered with."""

    request: Message
    status: str
    content_type: str
    answer: bytes


class Sink:
    """An HTTP/1.1 server with keep-alive on a free port of the loopback."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[str] = []
        self._mark = name.encode().hex()
        self._count = 0
        self._unclaimed: list[Delivery] = []
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def claim(self, count: int, seconds: float) -> list[Delivery]:
        """The deliveries since the last claim, as soon as there are `count` of them.

        Whatever has arrived is handed out when the time is over: the caller sees what is missing.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._unclaimed) >= count, seconds)
            claimed, self._unclaimed = self._unclaimed, []
            return claimed

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        buffer = bytearray()
        with connection:
            try:
                while chunk := connection.recv(65536):
                    buffer += chunk
                    while request := take(buffer):
                        connection.sendall(self._record(request))
            except ConnectionError:
                pass  # The mirror may drop an idle connection; what it lost shows in the counts.
            except Malformed as error:
                self.problems.append(f"malformed request: {error}")
        if buffer:
            self.problems.append(f"connection ended inside a request: {bytes(buffer[:200])!r}")

    def _record(self, request: Message) -> bytes:
        with self._changed:
            self._count += 1
            answer_id = f"{self._mark}{self._count:0{32 - len(self._mark)}x}"
            if request.asks_for_dialog:
                status, kind, answer = "200 OK", "text/javascript", dialog(request, answer_id)
            else:
                status, kind = next(a[1:] for a in ANSWERS if re.match(a[0], request.start_line))
                answer = f'{{"id":"{answer_id}"}}'.encode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(answer)}"
            if request.method == "HEAD":
                answer = b""
            self._unclaimed.append(Delivery(request, status.split(" ")[0], kind, answer))
            self._changed.notify_all()
        return head.encode() + b"\r\n\r\n" + answer


def dialog(request: Message, answer_id: str) -> bytes:
    """The script of the dialog, which names the absolute URL of this request."""
    url = json.dumps(f"http://{request.value('host')}{request.target}")
    safe = re.sub("[&<>']", lambda found: f"\\u{ord(found[0]):04x}", url)
    script = DIALOG.read_text(encoding="utf-8").replace("ENDPOINT", safe)
    return f"{script}// {answer_id}\n".encode()
