"""What every attack needs: a mirror, upstreams, honest clients beside it, and a verdict."""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
BINARY = Path(os.environ.get("SM", HERE.parents[1] / "target/release/sentry-mirror")).resolve()
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20

# Keys of two routes, and of outbounds.
KEY = "a1" * 16
OTHER_KEY = "a2" * 16
OUT_KEY = "0f" * 16


class Mirror:
    """A running mirror with one worker, unless `config` says otherwise. Use it in `with`.

    `config` is YAML that goes in front of `keys`; `routes` maps an inbound key to the DSNs of its
    outbounds. Everything listens on 127.0.0.1, on free ports. `through` is a command that runs the one
    behind it.
    """

    def __init__(
        self, routes: dict[str, list[str]], config: str = "workers: 1\n", through: list[str] | None = None
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="attack-")
        path = Path(self._folder.name) / "config.yml"
        keys = "".join(
            f"  - inbound: http://{key}@mirror.example/1\n    outbound: {json.dumps(outbounds)}\n"
            for key, outbounds in routes.items()
        )
        path.write_text(f"ip: 127.0.0.1\nport: 0\nadmin: {{port: 0}}\n{config}keys:\n{keys}")
        self.log: list[str] = []
        self.port = self.admin_port = 0
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [*(through or []), BINARY, "-c", path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with self._changed:
            is_up = self._changed.wait_for(lambda: self.port or self.has_ended, 20)
        if not is_up or not self.port:
            self._process.kill()
            sys.exit("the mirror does not listen; it said:\n" + "".join(self.log))

    def _read(self) -> None:
        for line in self._process.stderr:
            with self._changed:
                self.log.append(line)
                if found := re.search(r"status page at http://\S*?:(\d+)", line):
                    self.admin_port = int(found[1])
                if found := re.search(r" listening on \S*?:(\d+)", line):
                    self.port = int(found[1])
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone, which an attack must never reach."""
        return self._process.poll() is not None

    def connect(self, timeout: float = 30) -> socket.socket:
        """A new connection to it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def resident(self) -> int:
        """Bytes of memory that the process has now."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def peak(self) -> int:
        """The most bytes of memory that the process has had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024

    def cpu(self) -> float:
        """Seconds of CPU that all its threads have used."""
        threads = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((one / "schedstat").read_text().split()[0]) for one in threads) / 1e9

    def descriptors(self) -> int:
        """How many file descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of the metric `name` that have these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics") as response:
            page = response.read().decode()
        total = 0.0
        for line in page.splitlines():
            found = re.match(rf"{re.escape(name)}(?:{{(.*)}})? (\S+)", line)
            if found and all(f'{label}="{value}"' in (found[1] or "") for label, value in labels.items()):
                total += float(found[2])
        return total


class Sink:
    """An upstream that accepts everything at once: the program's own. Use it in `with`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [BINARY, "sink", "--listen", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.port = int(re.search(r":(\d+)", self._process.stdout.readline())[1])
        # It prints every request; nobody reads that, but it must not wait for a full pipe.
        threading.Thread(target=self._discard, daemon=True).start()

    def _discard(self) -> None:
        while self._process.stdout.read(1 << 16):
            pass

    def dsn(self, project: int = 1) -> str:
        """The DSN to name as an outbound."""
        return f"http://{OUT_KEY}@127.0.0.1:{self.port}/{project}"

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


class Upstream:
    """A hostile upstream: `serve(socket)` is called for each connection, in a thread of its own.

    `read_request` reads one request from such a socket.
    """

    def __init__(self, serve) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._serve = serve
        threading.Thread(target=self._accept, daemon=True).start()

    def dsn(self, project: int = 1) -> str:
        """The DSN to name as an outbound."""
        return f"http://{OUT_KEY}@127.0.0.1:{self.port}/{project}"

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self.connections += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._serve(connection)
            except (OSError, EOFError):
                pass


class Stream:
    """Reads HTTP messages from a socket, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""

    def _more(self) -> None:
        if not (received := self._connection.recv(1 << 16)):
            raise EOFError
        self._buffer += received

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._more()
        part, self._buffer = self._buffer.split(mark, 1)
        return part

    def _exactly(self, length: int) -> bytes:
        parts, missing = [self._buffer], length - len(self._buffer)
        while missing > 0:
            if not (received := self._connection.recv(min(missing + (1 << 12), 1 << 18))):
                raise EOFError
            parts.append(received)
            missing -= len(received)
        whole = b"".join(parts)
        self._buffer = whole[length:]
        return whole[:length]

    def message(self) -> tuple[bytes, bytes]:
        """The head of the next request or response, without the empty line, and its body."""
        head = self._until(b"\r\n\r\n")
        if re.search(rb"(?im)^transfer-encoding:[ \t]*chunked", head):
            body = b""
            while length := int(self._until(b"\r\n").split(b";")[0], 16):
                body += self._exactly(length)
                self._exactly(2)
            self._exactly(2)
            return head, body
        length = re.search(rb"(?im)^content-length:[ \t]*(\d+)", head)
        return head, self._exactly(int(length[1])) if length else b""


def envelope(key: str = KEY, size: int = 1000) -> bytes:
    """An envelope with an error whose message has `size` bytes."""
    event = "9ec79c33ec9942ab8353589fcb2e04dc"
    header = {"event_id": event, "dsn": f"http://{key}@mirror.example/1"}
    payload = json.dumps({"event_id": event, "message": "x" * size})
    item = {"type": "event", "length": len(payload)}
    return "\n".join([json.dumps(header), json.dumps(item), payload, ""]).encode()


def post(body: bytes, key: str | None = KEY, fields: str = "", path: str = "/api/1/envelope/") -> bytes:
    """A whole request, as an SDK sends it; without `key` only the body can name the route."""
    auth = f"X-Sentry-Auth: Sentry sentry_version=7, sentry_key={key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: mirror.example\r\n{auth}{fields}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class Served:
    """What honest clients saw."""

    sent: int
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> int:
        """Requests that were not answered with 200."""
        return self.sent - self.statuses.get("200", 0)


class Honest:
    """Clients that send envelopes at a fixed rate, half of them compressed, in a process of their own,
    so that the attack does not slow down their clock. `stop` ends them and says what they saw."""

    def __init__(self, mirror: Mirror, key: str = KEY, clients: int = 10, per_second: float = 20) -> None:
        self._process = subprocess.Popen(
            [sys.executable, HERE / "honest.py", str(mirror.port), key, str(clients), str(per_second)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # It says "ready" when each client has had its first answer.
        if self._process.stdout.readline() != "ready\n":
            sys.exit("the honest clients were refused before the attack began")

    def stop(self) -> Served:
        """Ends the clients."""
        output, _ = self._process.communicate()
        return Served(**json.loads(output))


class Verdict:
    """Collects what an attack showed: prints a line for each and ends with status 1 if a target was missed."""

    def __init__(self) -> None:
        self._failed = False

    def line(self, what: str, served: Served | None, mirror: Mirror, **targets: bool) -> None:
        """Prints a line about `what`; each of `targets` is a claim and whether it held."""
        figures = []
        if served:
            figures.append(f"honest p50 {served.p50_ms:.1f} ms, p99 {served.p99_ms:.1f} ms")
            figures.append(f"{served.refused} of {served.sent} refused")
        figures.append("the mirror ended" if mirror.has_ended else f"resident {mirror.peak() / MIB:.0f} MiB")
        missed = [claim for claim, held in targets.items() if not held]
        if mirror.has_ended:
            missed.append("alive")
        self._failed |= bool(missed)
        verdict = f"MISSED: {', '.join(missed)}" if missed else "ok"
        print(f"{what}: {'; '.join(figures)}: {verdict}", flush=True)

    def end(self) -> None:
        """Ends the script."""
        sys.exit(self._failed)
