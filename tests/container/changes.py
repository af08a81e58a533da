#!/usr/bin/env python3
"""A container around which things change: tests/container/changes.py FOLDER

An outbound comes back under another address, as a container does that was made anew. The file in the mounted
folder is replaced: first by a bad one, which changes nothing and which `health` does not mind, then by one
with another outbound, which a reload applies.
"""

import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import drain

KEYS = {"first": "a" * 32, "second": "b" * 32}
NAME = "sentry-mirror-changes"
drain.NAME = NAME


class Sink(http.server.ThreadingHTTPServer):
    """Accepts everything at one address, and counts it."""

    def __init__(self, address: str, port: int = 0) -> None:
        super().__init__((address, port), Handler)
        self.requests = 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def leave(self) -> None:
        """As a container does that is removed."""
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing: who is interested looks at the count."""


def replace(folder: Path, text: str) -> None:
    """Put a file into the place of the old one, as editors and git do."""
    new = folder / "new.yml"
    new.write_text(text)
    new.chmod(0o644)
    new.rename(folder / "config.yml")


def config(key: str, port: int) -> str:
    return (
        "ip: 127.0.0.1\nport: 0\nadmin: off\ndns: {refresh: 1s}\nbreaker: {pause: 100ms}\n"
        f"keys:\n  - inbound: http://{drain.KEY}@m/1\n"
        f"    outbound: [http://{KEYS[key]}@sentry.internal:{port}/2]\n"
    )


def start(folder: Path, hosts: Path) -> int:
    """Start the container; the port it listens on."""
    subprocess.run([drain.HERE / "engine", "remove", NAME], capture_output=True)
    environment = {**os.environ, "CONTAINER_HOSTS": str(hosts)}
    command = [drain.HERE / "mirror", "--detached", NAME, folder, "-c", "/etc/sentry-mirror/config.yml"]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return int(drain.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1])


def send_until(port: int, sink: Sink) -> None:
    """Send events until one arrives: a lookup may have to come first."""
    end = time.monotonic() + drain.PATIENCE_SECONDS
    while not sink.requests:
        assert time.monotonic() < end, drain.logs()
        drain.send(port, [])


def main() -> None:
    folder = Path(sys.argv[1]).resolve() / "changes"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    hosts = folder.with_suffix(".hosts")
    hosts.write_text("127.0.0.2 sentry.internal\n")
    hosts.chmod(0o644)
    here = Sink("127.0.0.2")
    replace(folder, config("first", here.server_port))
    port = start(folder, hosts)
    send_until(port, here)

    here.leave()
    there = Sink("127.0.0.3", here.server_port)
    # The same file, which is what the container sees.
    hosts.write_text("127.0.0.3 sentry.internal\n")
    send_until(port, there)

    replace(folder, "keys: none of\n  these: [\n")
    drain.engine("exec", NAME, "/opt/sentry-mirror", "health", "-c", "/etc/sentry-mirror/config.yml")
    drain.engine("kill", "-s", "HUP", NAME)
    drain.wait_for("the configuration is not reloaded")
    drain.engine("exec", NAME, "/opt/sentry-mirror", "health", "-c", "/etc/sentry-mirror/config.yml")

    other = Sink("127.0.0.3")
    replace(folder, config("second", other.server_port))
    drain.engine("kill", "-s", "HUP", NAME)
    drain.wait_for("configuration reloaded: ")
    send_until(port, other)
    drain.engine("stop", "-t", "10", NAME)
    assert drain.engine("wait", NAME).strip() == "0", drain.logs()
    drain.engine("rm", NAME)


if __name__ == "__main__":
    main()
