"""Real peers as child processes, origins that note what arrives, certificates, and one line for each check."""

import atexit
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "attack"))

import lib

WAIT_SECONDS = 10
POLL_SECONDS = 0.02

ANSWER = b'{"id":"9ec79c33ec9942ab8353589fcb2e04dc"}'

# For peers where the suite is run by root.
UNPRIVILEGED = "nobody"


def wait_until(is_so: Callable[[], object], what: str) -> None:
    """Look again and again, until `is_so` or the time is over."""
    end = time.monotonic() + WAIT_SECONDS
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"not within {WAIT_SECONDS} s: {what}")
        time.sleep(POLL_SECONDS)


def free_port() -> int:
    """A port of the loopback that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def listens(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection(("127.0.0.1", port), WAIT_SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True


class Work:
    """A folder in which unprivileged peers may write."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="peers-"))
        atexit.register(shutil.rmtree, self.path, True)
        self.path.chmod(0o755)

    def folder(self, name: str) -> Path:
        """A new folder for a peer."""
        path = self.path / name
        path.mkdir()
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            os.chown(path, user.pw_uid, user.pw_gid)
        return path


class Peer:
    """A server as a child process without privileges. Use it in `with`."""

    def __init__(self, name: str, folder: Path, command: list[str], port: int) -> None:
        self.name, self.port = name, port
        self._log = folder / "output"
        who = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **who,
            )
        atexit.register(self.stop)
        wait_until(lambda: self._process.poll() is not None or listens(port), f"{name} listens")
        if self._process.poll() is not None:
            sys.exit(f"{name} does not start; it said:\n{self._log.read_text()}")

    def stop(self) -> None:
        """End it with its helpers."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Origin:
    """An upstream that accepts everything, and notes the heads and bodies that arrive."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._upstream = lib.Upstream(self._serve)
        self._lock = threading.Lock()
        self._received: list[tuple[str, bytes]] = []

    @property
    def port(self) -> int:
        """Where it listens, at 127.0.0.1."""
        return self._upstream.port

    @property
    def connections(self) -> int:
        """How many connections there were."""
        return self._upstream.connections

    def take(self, count: int) -> list[tuple[str, bytes]]:
        """Wait until so many requests have arrived, and forget them. They come over several connections, so they are
        in the order of what follows the first line of their bodies, which has the outbound's DSN."""
        wait_until(lambda: len(self._received) >= count, f"{count} requests, {len(self._received)} came")
        with self._lock:
            received, self._received = self._received, []
        assert len(received) == count, f"{len(received)} requests instead of {count}"
        return sorted(received, key=lambda request: payload(request[1]))

    def _serve(self, connection: socket.socket) -> None:
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        stream = lib.Stream(connection)
        while True:
            head, body = stream.message()
            with self._lock:
                self._received.append((head.decode("latin-1"), body))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(ANSWER), ANSWER))


class Mirror(lib.Mirror):
    """The mirror with one route to `outbounds`, each of which is a DSN or a mapping."""

    def __init__(self, outbounds: list, config: str = "") -> None:
        super().__init__({lib.KEY: outbounds}, f"workers: 1\nreply_timeout: 15s\n{config}")

    def send(self, *bodies: bytes, fields: str = "") -> list[int]:
        """Send envelopes over one connection; the status of each answer."""
        with self.connect() as connection:
            return exchange(connection, bodies or (lib.envelope(),), fields)

    def wait_for_line(self, words: str) -> str:
        """The first line of its log that has these words."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [line for line in self.log if words in line]
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(look, WAIT_SECONDS):
                raise AssertionError(f"no line with {words!r} in:\n" + "".join(self.log))
        return found[0]

    def wait_for_deliveries(self, count: int, outcome: str) -> None:
        """Wait until so many deliveries have ended so."""
        name = "sentry_mirror_deliveries_total"
        wait_until(
            lambda: self.metric(name, outcome=outcome) == count,
            f"{count} deliveries that end with {outcome}; it said:\n" + "".join(self.log),
        )

    def page(self, path: str) -> str:
        """A page for operators."""
        with lib.urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}") as response:
            return response.read().decode()

    def listener(self) -> int:
        """The port of its second listener."""
        line = self.wait_for_line(", too")
        return int(re.search(r"listening on \S*?:(\d+)", line)[1])


def exchange(connection: socket.socket, bodies: tuple[bytes, ...], fields: str = "") -> list[int]:
    """Send envelopes, one after the other; the status of each answer."""
    stream, statuses = lib.Stream(connection), []
    for body in bodies:
        connection.sendall(lib.post(body, fields=fields))
        head, _ = stream.message()
        statuses.append(int(head.split()[1]))
    return statuses


def payload(body: bytes) -> bytes:
    """An envelope without its first line."""
    return body.split(b"\n", 1)[1]


def field(head: str, name: str) -> list[str]:
    """The values of a field."""
    return re.findall(rf"(?im)^{re.escape(name)}:[ \t]*(.*?)\r?$", head)


class Certificates:
    """Two authorities, a server's certificate, and a client's of each authority, made by openssl."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self.authority = self._authority("authority")
        self._authority("other")
        self.server = self._signed("server", "authority", "DNS:sentry.test,DNS:localhost,IP:127.0.0.1")
        self.client = self._signed("client", "authority", "DNS:mirror.test")
        self.stranger = self._signed("stranger", "other", "DNS:mirror.test")

    def context(self) -> ssl.SSLContext:
        """For a server with the server's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.server)
        return context

    def _authority(self, name: str) -> Path:
        self._openssl(
            f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={name} "
            f"-keyout {name}.key -out {name}.crt"
        )
        return self._folder / f"{name}.crt"

    def _signed(self, name: str, authority: str, names: str) -> tuple[Path, Path]:
        self._openssl(
            f"req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        )
        (self._folder / "extensions").write_text(f"subjectAltName={names}\nbasicConstraints=CA:false\n")
        self._openssl(
            f"x509 -req -in {name}.csr -CA {authority}.crt -CAkey {authority}.key -CAcreateserial -days 2 "
            f"-extfile extensions -out {name}.crt"
        )
        # Unprivileged peers read it; it is worth nothing.
        (self._folder / f"{name}.key").chmod(0o644)
        return self._folder / f"{name}.crt", self._folder / f"{name}.key"

    def _openssl(self, arguments: str) -> None:
        subprocess.run(["openssl", *arguments.split()], cwd=self._folder, check=True, capture_output=True)


class Nginx(Peer):
    """nginx with these directives in its `http` block."""

    def __init__(self, work: Work, name: str, port: int, http: str) -> None:
        folder = work.folder(name)
        places = "".join(
            f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        path = folder / "nginx.conf"
        path.write_text(
            f"daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/error.log info;\nworker_processes 1;\n"
            f"events {{}}\nhttp {{\naccess_log off;\n{places}{http}}}\n"
        )
        super().__init__(name, folder, ["nginx", "-p", str(folder), "-c", str(path), "-e", f"{folder}/error.log"], port)


class Checks:
    """Prints a line for each check. One that raises has failed; the others still run."""

    def __init__(self) -> None:
        self.count, self.failed = 0, 0

    def run(self, what: str, check: Callable[[], None]) -> None:
        """Run one check."""
        self.count += 1
        try:
            check()
        except (AssertionError, OSError, EOFError) as problem:
            self.failed += 1
            print(f"FAILED: {what}: {problem or type(problem).__name__}", flush=True)
        else:
            print(f"ok: {what}", flush=True)
