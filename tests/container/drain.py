#!/usr/bin/env python3
"""A container that is stopped in the middle of a request: tests/container/drain.py FOLDER

Two sinks answer only when they are told to. One is reached over https by a name, with a certificate
that the configuration names: so names and TLS are tried in the image as well. When both
have a request, the engine is told to stop the container, and when the mirror says that it stops, the sinks
answer. The sender must get its answer, both deliveries must end well, and the container with 0.
"""

import http.client
import http.server
import os
import re
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME = "sentry-mirror-drain"
KEY = "0123456789abcdef0123456789abcdef"
PATIENCE_SECONDS = 20
ENVELOPE = b'{}\n{"type":"event","length":2}\n{}\n'


class Sink(http.server.ThreadingHTTPServer):
    """Takes a request, waits until it may answer, answers."""

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.has_request = threading.Event()
        self.may_answer = threading.Event()
        self.has_answered = threading.Event()
        self.body = b""
        self.scheme = "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate, certificate.with_suffix(".key"))
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.scheme = "https"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def dsn(self, key: str) -> str:
        """Its DSN; `localhost` has to be looked up."""
        return f"{self.scheme}://{key * 32}@localhost:{self.server_port}/2"


class Handler(http.server.BaseHTTPRequestHandler):
    """One answer, when it is time."""

    protocol_version = "HTTP/1.1"
    server: Sink

    def do_POST(self) -> None:
        self.server.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.has_request.set()
        self.server.may_answer.wait(PATIENCE_SECONDS)
        answer = b'{"id":"slow"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.server.has_answered.set()

    def log_message(self, *_: object) -> None:
        """Nothing: who is interested looks at the events."""


def engine(*arguments: str) -> str:
    """Run the engine; what it says."""
    command = [HERE / "engine", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_certificate(path: Path) -> None:
    """A certificate for localhost, which is trusted as such."""
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
    files = ["-keyout", path.with_suffix(".key"), "-out", path]
    subprocess.run(["openssl", *command.split(), *names, *files], check=True, capture_output=True)
    path.chmod(0o644)


def start(folder: Path, sinks: list[Sink], certificate: Path) -> int:
    """Start the container; the port it listens on."""
    config = folder / "drain.yml"
    outbounds = "".join(f"      - {sink.dsn(key)}\n" for sink, key in zip(sinks, "ab"))
    config.write_text(
        f"ip: 127.0.0.1\nport: 0\nadmin: off\nreply_timeout: 10s\n"
        "tls: {ca_file: /opt/ca.pem}\n"
        f"keys:\n  - inbound: http://{KEY}@m/1\n    outbound:\n{outbounds}"
    )
    config.chmod(0o644)
    subprocess.run([HERE / "engine", "remove", NAME], capture_output=True)
    environment = {**os.environ, "CONTAINER_CA": str(certificate)}
    command = [HERE / "mirror", "--detached", NAME, config]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return int(wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])


def wait_for(pattern: str) -> re.Match:
    """Wait until the mirror says so."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not (found := re.search(pattern, logs())):
        assert time.monotonic() < end, logs()
        time.sleep(0.05)
    return found


def logs() -> str:
    """What the mirror has said so far."""
    command = [HERE / "engine", "logs", NAME]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ).stdout


def send(port: int, answers: list[tuple[int, bytes]]) -> None:
    """Send an envelope and note the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    auth = {"X-Sentry-Auth": f"Sentry sentry_key={KEY}, sentry_version=7"}
    connection.request("POST", "/api/1/envelope/", ENVELOPE, auth)
    response = connection.getresponse()
    answers.append((response.status, response.read()))


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    certificate = folder / "drain.pem"
    make_certificate(certificate)
    sinks = [Sink(certificate), Sink()]
    port = start(folder, sinks, certificate)
    answers: list[tuple[int, bytes]] = []
    sender = threading.Thread(target=send, args=[port, answers])
    sender.start()
    for sink in sinks:
        assert sink.has_request.wait(PATIENCE_SECONDS), f"no {sink.scheme} delivery: {logs()}"
    stopping = subprocess.Popen([HERE / "engine", "stop", "-t", "15", NAME])
    wait_for("stopping: finishing what is in flight")
    for sink in sinks:
        sink.may_answer.set()
    assert stopping.wait(PATIENCE_SECONDS) == 0
    sender.join(PATIENCE_SECONDS)
    assert answers == [(200, b'{"id":"slow"}')], (answers, logs())
    for sink in sinks:
        assert sink.has_answered.is_set(), f"the {sink.scheme} delivery was given up: {logs()}"
        assert sink.body == ENVELOPE, sink.body
    assert engine("wait", NAME).strip() == "0", logs()
    [totals] = [line for line in logs().splitlines() if "stopped: " in line]
    assert "given_up=0" in totals.replace('"', ""), totals
    engine("rm", NAME)


if __name__ == "__main__":
    main()
