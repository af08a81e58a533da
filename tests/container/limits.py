#!/usr/bin/env python3
"""A container with little memory and few processes: tests/container/limits.py FOLDER

Sixty uploads of 20 MB come at once, five times what the container may have, for an outbound that answers only
when it is told to. What is answered with 200 is delivered, what does not fit is answered with 503, the kernel
kills nothing, and the container stays healthy.
"""

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import drain

sys.path.insert(0, str(drain.HERE.parent / "attack"))
import lib

NAME = "sentry-mirror-limits"
drain.NAME = NAME
UPLOADS = 60
UPLOAD_BYTES = 20_000_000
LIMITS = {"CONTAINER_MEMORY": "256m", "CONTAINER_PIDS": "32"}


class Sink(http.server.ThreadingHTTPServer):
    """Takes requests, keeps nothing of them, and answers when it may."""

    # All of them may connect at once.
    request_queue_size = UPLOADS

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.may_answer = threading.Event()
        self.requests = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 16)))
        with self.server.lock:
            self.server.requests += 1
        self.server.may_answer.wait(drain.PATIENCE_SECONDS)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing: who is interested looks at the count."""


def start(folder: Path, sink: Sink) -> int:
    """Start the container; the port it listens on."""
    config = folder / "limits.yml"
    config.write_text(
        f"ip: 127.0.0.1\nport: 0\nadmin: off\nkeys:\n  - inbound: http://{lib.KEY}@m/1\n"
        f"    outbound: [http://{lib.OUT_KEY}@127.0.0.1:{sink.server_port}/2]\n"
    )
    config.chmod(0o644)
    subprocess.run([drain.HERE / "engine", "remove", NAME], capture_output=True)
    command = [drain.HERE / "mirror", "--detached", NAME, config]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **LIMITS})
    return int(drain.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])


def upload(port: int, request: bytes, statuses: Counter[str]) -> None:
    """Send a request; what it was answered."""
    with socket.create_connection(("127.0.0.1", port), drain.PATIENCE_SECONDS) as connection:
        try:
            connection.sendall(request)
        except OSError:
            pass  # It may be refused before it is sent, and the answer is there all the same.
        statuses[lib.Stream(connection).message()[0].split(b" ", 2)[1].decode()] += 1


def main() -> None:
    sink = Sink()
    port = start(Path(sys.argv[1]).resolve(), sink)
    request = lib.post(lib.envelope(size=UPLOAD_BYTES))
    statuses: Counter[str] = Counter()
    uploads = [threading.Thread(target=upload, args=[port, request, statuses]) for _ in range(UPLOADS)]
    for one in uploads:
        one.start()
    for one in uploads:
        one.join()
    sink.may_answer.set()
    print(dict(statuses), "delivered:", sink.requests)
    assert sum(statuses.values()) == UPLOADS, (statuses, drain.logs())
    assert set(statuses) == {"200", "503"}, (statuses, drain.logs())
    drain.engine("exec", NAME, "/opt/sentry-mirror", "health")
    killed = drain.engine("inspect", "--format", "{{.State.OOMKilled}} {{.State.Running}}", NAME)
    assert killed.strip() == "false true", (killed, drain.logs())
    drain.engine("stop", "-t", "10", NAME)
    assert drain.engine("wait", NAME).strip() == "0", drain.logs()
    assert sink.requests == statuses["200"], (sink.requests, statuses, drain.logs())
    drain.engine("rm", NAME)


if __name__ == "__main__":
    main()
