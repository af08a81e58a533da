"""The program under test: the real binary as a child process with a real configuration file."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

from expected import Dsn

START_SECONDS = 10
STOP_SECONDS = 10


class NotListening(Exception):
    """The mirror did not come up."""


class Mirror:
    """A running sentry-mirror, which listens on `port`: a free one unless told which.

    `admin` is the URL of its admin port.
    """

    def __init__(
        self,
        binary: Path,
        inbound: Dsn,
        outbounds: list[Dsn],
        folder: Path,
        port: int = 0,
        extra: str = "",
    ) -> None:
        config = folder / "config.yml"
        config.write_text(
            "ip: 127.0.0.1\n"
            f"port: {port}\n"
            "admin: {port: 0}\n"
            f"{extra}"
            "keys:\n"
            f"  - inbound: {inbound}\n"
            "    outbound:\n" + "".join(f"      - {outbound}\n" for outbound in outbounds)
        )
        self.output: list[str] = []
        self.port = 0
        self.admin = ""
        self._ended = False
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [binary, "-c", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=clean_environment(),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        with self._changed:
            self._changed.wait_for(lambda: self.port and self.admin or self._ended, START_SECONDS)
        if not (self.port and self.admin):
            self._process.kill()
            self._reader.join(STOP_SECONDS)
            raise NotListening("the mirror does not listen; it said:\n" + "".join(self.output))

    def stop(self) -> str:
        """End it with SIGTERM; what was wrong about its end, or nothing."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return f"still running {STOP_SECONDS} s after SIGTERM"
        self._reader.join(STOP_SECONDS)
        if code != 0:
            return f"exit code {code} after SIGTERM"
        if any("panicked" in line for line in self.output):
            return "panicked while it ran"
        return ""

    def _read(self) -> None:
        for line in self._process.stdout:
            with self._changed:
                self.output.append(line)
                found = re.search(r"listening on \S*?:(\d+)", line)
                if found and not self.port:
                    self.port = int(found[1])
                if found := re.search(r"status page at (http://\S+)/", line):
                    self.admin = found[1]
                self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def clean_environment() -> dict[str, str]:
    """This environment without what would steer an SDK or the mirror past the suite."""
    steering = re.compile(r"SENTRY_|.*_PROXY$|NODE_OPTIONS$|PYTHON", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not steering.match(name)}
