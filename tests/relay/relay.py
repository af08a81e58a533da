"""A real Relay in proxy mode as a child process, on a free port of the loopback.

In proxy mode it needs no credentials and no project configuration: it takes what bears any key,
checks it, and passes it on to its upstream.
"""

import atexit
import json
import os
import signal
import subprocess
import threading
from pathlib import Path

from mirror import NotListening, clean_environment

START_SECONDS = 30
STOP_SECONDS = 10


class Relay:
    """A running Relay, which listens on `port` and sends to `upstream`, a port of the loopback."""

    def __init__(self, binary: Path, upstream: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "relay": {
                "mode": "proxy",
                "upstream": f"http://127.0.0.1:{upstream}/",
                "host": "127.0.0.1",
                "port": 0,
            },
            # An outage begins with the first failure, and its end is looked for every second.
            "http": {"outage_grace_period": 0, "max_retry_interval": 1},
            "limits": {"shutdown_timeout": 1},
            "logging": {"level": "info", "format": "simplified"},
            "sentry": {"enabled": False},
        }
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML, too.
        self.output: list[str] = []
        self.port = 0
        self._ended = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [binary, "--config", folder, "run"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={k: v for k, v in clean_environment().items() if not k.startswith("RELAY_")},
        )
        atexit.register(self._process.kill)  # If the suite fails before it can stop it.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with self._changed:
            self._changed.wait_for(lambda: self.port or self._ended, START_SECONDS)
        if not self.port:
            self._process.kill()
            self._reader.join(STOP_SECONDS)
            raise NotListening("Relay does not listen; it said:\n" + "".join(self.output))

    def has_said(self, text: str, seconds: float) -> bool:
        """Wait until a line of its log contains this."""
        with self._changed:
            return self._changed.wait_for(lambda: any(text in x for x in self.output), seconds)

    def stop(self) -> str:
        """End it with SIGTERM; what was wrong about its end, or nothing."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return f"still running {STOP_SECONDS} s after SIGTERM"
        self._reader.join(STOP_SECONDS)
        return f"exit code {code} after SIGTERM" if code else ""

    def _read(self) -> None:
        for line in self._process.stdout:
            with self._changed:
                self.output.append(line)
                # It prints the port of its configuration, 0, when it listens on the real one.
                if "listening on" in line and not self.port:
                    self.port = listening_port(self._process.pid)
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def listening_port(process: int) -> int:
    """The TCP port on which a process listens; 0 if it does not."""
    sockets = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            sockets.add(os.readlink(descriptor))
        except FileNotFoundError:
            pass  # Closed since the folder was read.
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == "0A" and f"socket:[{inode}]" in sockets:
            return int(local.partition(":")[2], 16)
    return 0
