"""A mirror in control groups of 128, 256 and 512 MiB, as in `docker run --memory`, under uploads of many
sizes and numbers. The kernel never kills it, what is answered with 200 is delivered, and what does not fit
is answered with 503.

It makes control groups of version 1 or 2, so it needs root and a hierarchy that can be written to. Where it
cannot have that, it says SKIPPED and ends with status 77.
"""

import gzip
import os
import random
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from lib import KEY, MIB, OTHER_KEY, Mirror, Stream, Upstream, envelope, post

KIB = 1024
LIMITS = [128, 256, 512]


class Group:
    """A control group that may take so much memory. Use it in `with`."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._folder, self._version = place()
        self._folder /= f"sentry-mirror-attack-{os.getpid()}-{limit // MIB}"
        self._folder.mkdir()
        try:
            if self._version == 1:
                self._write("memory.limit_in_bytes", limit)
                # From now on the buffers of its sockets are counted. In version 2 they are by default, and
                # in the same number.
                self._write("memory.kmem.tcp.limit_in_bytes", -1)
            else:
                self._write("memory.max", limit)
                self._write("memory.swap.max", 0)
        except OSError:
            self._folder.rmdir()
            raise

    def __enter__(self) -> "Group":
        return self

    def __exit__(self, *_: object) -> None:
        # It is empty when the kernel has noticed that its processes are gone.
        for _ in range(100):
            try:
                return self._folder.rmdir()
            except OSError:
                time.sleep(0.05)

    def _write(self, name: str, value: int) -> None:
        (self._folder / name).write_text(str(value))

    def _read(self, name: str) -> str:
        return (self._folder / name).read_text()

    def through(self) -> list[str]:
        """A command that runs the one behind it in this group."""
        return ["sh", "-c", f'echo $$ >"{self._folder}/cgroup.procs"; exec "$@"', "sh"]

    def kills(self) -> int:
        """How many processes the kernel has killed for memory."""
        name = "memory.oom_control" if self._version == 1 else "memory.events"
        return int(re.search(r"^oom_kill (\d+)", self._read(name), re.M)[1])

    def peak(self) -> tuple[int, int]:
        """The most bytes that it had, and of them, or besides in version 1, in sockets."""
        if self._version == 1:
            sockets = int(self._read("memory.kmem.tcp.max_usage_in_bytes"))
            return int(self._read("memory.max_usage_in_bytes")) + sockets, sockets
        sockets = int(re.search(r"^sock (\d+)", self._read("memory.stat"), re.M)[1])
        return int(self._read("memory.peak")), sockets


def place() -> tuple[Path, int]:
    """A folder in which control groups with a limit can be made, and their version."""
    own = Path("/proc/self/cgroup").read_text()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ")
        kind, _, options = after.split(" ", 2)
        root, mounted = before.split()[3:5]
        if kind == "cgroup" and "memory" in options.split(","):
            group = re.search(r"^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.*)$", own, re.M)
            if group:
                below = os.path.relpath(group[1], root) if group[1].startswith(root) else "."
                return Path(mounted) / below, 1
        if kind == "cgroup2" and "memory" in (Path(mounted) / "cgroup.subtree_control").read_text().split():
            return Path(mounted), 2
    raise OSError("there is no memory controller for groups of one's own")


class Clients:
    """Clients that send a request each, in threads, and note what they were answered."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._threads: list[threading.Thread] = []
        self.answers: Counter[str] = Counter()

    def send(self, request: bytes) -> None:
        """Sends a whole request."""
        thread = threading.Thread(target=self._send, args=(request,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _send(self, request: bytes) -> None:
        try:
            with self._mirror.connect(60) as connection:
                try:
                    connection.sendall(request)
                except OSError:
                    pass  # It may be refused before it is sent, and the answer is there all the same.
                self.answers[Stream(connection).message()[0].split(b" ", 2)[1].decode()] += 1
        except (OSError, EOFError):
            self.answers["none"] += 1

    def wait(self) -> Counter[str]:
        """What they were answered, once all were."""
        for thread in self._threads:
            thread.join()
        return self.answers


def secured(dsn: str) -> str:
    """The same DSN with TLS."""
    return dsn.replace("http:", "https:").replace("127.0.0.1", "localhost")


class Count:
    """An upstream that counts the requests that are whole."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests = 0
        self._lock = threading.Lock()
        self._tls = tls
        self._upstream = Upstream(self._serve)

    def dsn(self, project: int = 1) -> str:
        """The DSN to name as an outbound."""
        dsn = self._upstream.dsn(project)
        return secured(dsn) if self._tls else dsn

    def _serve(self, connection: socket.socket) -> None:
        if self._tls:
            connection = self._tls.wrap_socket(connection, server_side=True)
        stream = Stream(connection)
        while True:
            stream.message()
            with self._lock:
                self.requests += 1
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def deaf(tls: ssl.SSLContext | None) -> Upstream:
    """An upstream that shakes hands, if there is TLS, and then reads nothing."""

    def serve(connection: socket.socket) -> None:
        kept = tls.wrap_socket(connection, server_side=True) if tls else connection
        time.sleep(3600)
        kept.close()

    return Upstream(serve)


def honest_uploads(mirror: Mirror) -> Counter[str]:
    """Ten uploads of 40 MB at once."""
    clients, upload = Clients(mirror), post(envelope(size=40_000_000))
    for _ in range(10):
        clients.send(upload)
    return clients.wait()


def many_sizes(mirror: Mirror) -> Counter[str]:
    """160 uploads of 1 KB to 20 MB, most of them small, forty at a time."""
    sizes = random.Random(1)
    answers: Counter[str] = Counter()
    for _ in range(4):
        clients = Clients(mirror)
        for _ in range(40):
            clients.send(post(envelope(size=int(10 ** sizes.uniform(3, 7.3)))))
        answers += clients.wait()
    return answers


def bombs(mirror: Mirror) -> Counter[str]:
    """Two hundred bodies of 16 KB that stand for 15 MiB each."""
    bomb = post(gzip.compress(envelope(size=15 * MIB)), fields="Content-Encoding: gzip\r\n")
    clients = Clients(mirror)
    for _ in range(200):
        clients.send(bomb)
    return clients.wait()


def unfinished(mirror: Mirror) -> Counter[str]:
    """Uploads that never end, of sizes that double; of each size every other one is closed."""
    held: list[socket.socket] = []
    for size in [17 * KIB, 36 * KIB, 76 * KIB, 160 * KIB, 340 * KIB, 720 * KIB, 1500 * KIB, 30 * MIB]:
        head = f"POST /tunnel HTTP/1.1\r\nHost: m\r\nContent-Length: {size}\r\n\r\n".encode()
        for _ in range(min(2000, 2 * 512 * MIB // size)):
            try:
                connection = mirror.connect(2)
                connection.sendall(head + bytes(size - 1))
                held.append(connection)
                connection.setblocking(False)
                if connection.recv(1):
                    break
            except BlockingIOError:
                pass
            except OSError:
                break
        for connection in held[::2]:
            connection.close()
        del held[::2]
    for connection in held:
        connection.close()
    return Counter()


def to_the_deaf(mirror: Mirror) -> Counter[str]:
    """A thousand uploads of 300 KB for an upstream that reads nothing."""
    clients = Clients(mirror)
    request = post(envelope(OTHER_KEY, 300_000), OTHER_KEY)
    for _ in range(1000):
        clients.send(request)
    return clients.wait()


def small_to_the_deaf(mirror: Mirror) -> Counter[str]:
    """3,000 small requests for the same."""
    request = post(envelope(OTHER_KEY), OTHER_KEY)
    for connection in open_with(mirror, [request] * 3000):
        connection.close()
    return Counter()


def heads(mirror: Mirror) -> Counter[str]:
    """300 unfinished uploads of 1 MB, and 9,000 connections with 15 KB of a head that does not end."""
    upload = post(bytes(MIB), key=None, path="/tunnel")[:-1]
    head = f"POST / HTTP/1.1\r\nHost: m\r\nX-Long: {'x' * 15_000}".encode()
    for connection in open_with(mirror, [upload] * 300 + [head] * 9000):
        connection.close()
    return Counter()


def open_with(mirror: Mirror, beginnings: list[bytes]) -> list[socket.socket]:
    """Connections that have each sent one of `beginnings`, as many as are let in."""
    connections: list[socket.socket] = []
    for beginning in beginnings:
        try:
            connections.append(mirror.connect(1))
            connections[-1].sendall(beginning)
        except TimeoutError:
            break
        except OSError:
            continue  # It was refused.
    return connections


# What one request of a wave takes at most: something of it is delivered where a worker may take as much.
LARGEST = {honest_uploads: 41 * MIB, many_sizes: 10 * MIB, bombs: 20 * MIB}


def certificate(folder: str) -> ssl.SSLContext | None:
    """A context with a certificate for localhost at `folder`/c.pem; `None` without the program openssl."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {folder}/k.pem -out {folder}/c.pem"
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/c.pem", f"{folder}/k.pem")
    return context


def settle(mirror: Mirror) -> None:
    """Waits until the mirror is up, and has let go of the wave before: deliveries end after 10 s."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not mirror.has_ended:
        try:
            limit = mirror.metric("sentry_mirror_request_memory_limit_bytes")
            if limit and mirror.metric("sentry_mirror_request_memory_bytes") < MIB:
                return
        except OSError:
            pass
        time.sleep(0.2)


def attack(
    name: str, group: Group, config: str, outbounds: list[Count], waves: list, tls: ssl.SSLContext | None = None
) -> bool:
    """Sends `waves` to a mirror in `group`; whether all held."""
    nobody = deaf(tls).dsn()
    dsns = [one.dsn(place) for place, one in enumerate(outbounds)]
    routes = {KEY: dsns, OTHER_KEY: [secured(nobody) if tls else nobody]}
    missed, told = [], []
    with Mirror(routes, config, group.through()) as mirror:
        workers = int(re.search(r"workers: (\d+)", config)[1])
        for wave in waves:
            settle(mirror)
            budget = mirror.metric("sentry_mirror_request_memory_limit_bytes") // workers
            before = sum(one.requests for one in outbounds)
            answers = Counter() if mirror.has_ended else wave(mirror)
            if mirror.has_ended:
                missed.append(f"alive after {wave.__name__}")
                break
            if answers:
                told.append(f"{wave.__name__} {dict(sorted(answers.items()))}")
            if set(answers) - {"200", "503"}:
                missed.append(f"200 or 503 to {wave.__name__}")
            if LARGEST.get(wave, budget) < budget and not answers["200"]:
                missed.append(f"something of {wave.__name__} fits")
            delivered = sum(one.requests for one in outbounds) - before
            if wave in LARGEST and delivered < answers["200"]:
                missed.append(f"what is taken of {wave.__name__} is delivered")
        resident = 0 if mirror.has_ended else mirror.peak()
        if group.kills():
            missed.append("not killed")
    peak, sockets = group.peak()
    verdict = f"MISSED: {', '.join(missed)}" if missed else "ok"
    figures = f"resident {resident // MIB} MiB, group {peak // MIB} MiB with {sockets // MIB} MiB in sockets"
    print(f"{group.limit // MIB} MiB, {name}: {figures}; {'; '.join(told)}: {verdict}", flush=True)
    return not missed


def main() -> None:
    try:
        Group(256 * MIB).__exit__()
    except OSError as error:
        print(f"container_memory: SKIPPED: no control group can be made here: {error}", file=sys.stderr)
        sys.exit(77)
    one = "workers: 1\ntimeouts: {body: 60s, exchange: 10s}\n"
    two = one.replace("workers: 1", "workers: 2")
    waves = [honest_uploads, many_sizes, bombs, unfinished, to_the_deaf, small_to_the_deaf, heads, many_sizes, honest_uploads]
    good = True
    with tempfile.TemporaryDirectory() as folder:
        context = certificate(folder)
        for limit in LIMITS:
            with Group(limit * MIB) as group:
                good &= attack("a worker", group, one, [Count()], waves)
            with Group(limit * MIB) as group:
                good &= attack("two workers, two outbounds", group, two, [Count(), Count()], waves)
            if context:
                tls = f"{one}tls: {{ca_file: {folder}/c.pem}}\n"
                with Group(limit * MIB) as group:
                    good &= attack("TLS", group, tls, [Count(context)], waves, context)
        if not context:
            print("container_memory: SKIPPED with TLS: no program openssl", file=sys.stderr)
    sys.exit(not good)


main()
