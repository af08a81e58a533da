"""What sentry-cli sends to a DSN: `cli.py SENTRY_CLI`, DSN in SENTRY_DSN.

Each step says what it is about to send (see README.md), one request per name, and runs the binary
once. All else that sentry-cli does goes to the web API with a bearer token: not for a mirror.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

DSN = os.environ["SENTRY_DSN"]
KEY = DSN.split("//")[1].split("@")[0]
# In the form of sentry-native. Its header has what sentry-cli itself never writes: `dsn`, `trace`.
RECORDED = Path(__file__).parent / "native.envelope"
RECORDED_DSN = "http://0123456789abcdef0123456789abcdef@mirror.example.com/42"


MONITOR = ("monitors", "run", "nightly", "-s", "0 * * * *", "--", "true")
# Without --raw, sentry-cli parses the header and refuses these, since it wants them quoted.
UNPARSABLE = '"sample_rate":1,"sample_rand":0.1263391142495743,'


def main() -> None:
    header, newline, payload = RECORDED.read_text(encoding="utf-8").partition("\n")
    recorded_key = RECORDED_DSN.split("//")[1].split("@")[0]
    header = header.replace(RECORDED_DSN, DSN).replace(recorded_key, KEY)
    assert UNPARSABLE in header
    with tempfile.TemporaryDirectory() as folder:
        raw, parsed = Path(folder, "raw.envelope"), Path(folder, "parsed.envelope")
        raw.write_text(header + newline + payload, encoding="utf-8")
        parsed.write_text(header.replace(UNPARSABLE, "") + newline + payload, encoding="utf-8")

        def step(names: tuple[str, ...], items: str, *command: str | Path) -> None:
            for name in names:
                print(json.dumps([name, items, "identity", "length"]), flush=True)
            # In an empty folder and home, without a look for a newer version: only what is here.
            quiet = {"HOME": folder, "SENTRY_DISABLE_UPDATE_CHECK": "1"}
            subprocess.run(
                [sys.argv[1], *command],
                cwd=folder,
                env=os.environ | quiet,
                stdout=sys.stderr,
                check=True,
            )

        step(("event",), "event", "send-event", "-m", f"größer {KEY}", "--release", "app@1.2.3")
        step(("envelope",), "event+attachment", "send-envelope", parsed)
        step(("envelope, raw",), "event+attachment", "send-envelope", "--raw", raw)
        step(("monitor begins", "monitor ends"), "check_in", *MONITOR)


if __name__ == "__main__":
    main()
