"""Real Relays behind the mirror, then one in front of it: nothing may be refused or get lost.

`run` prepares Relay and the SDKs of tests/sdk, whose parts this uses, and calls this.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "sdk"))

from behind import Behind  # noqa: E402
from clients import Client, clients  # noqa: E402
from in_front import InFront  # noqa: E402
from mirror import NotListening  # noqa: E402
from suite import Tally  # noqa: E402
from wire import Malformed  # noqa: E402


def without_dialog(client: Client) -> Client:
    """The same client, which does nothing that Relay has no endpoint for."""
    if not client.name.startswith("browser"):
        return client
    return replace(client, command=(*client.command, "no-dialog"))


def main() -> int:
    if len(sys.argv) < 3 or "RELAY_BIN" not in os.environ:
        raise SystemExit("usage: relays.py BINARY INSTALLED [CLIENT...]; normally called by `run`")
    binary, installed, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    everyone = [without_dialog(client) for client in clients(installed)]
    chosen = [client for client in everyone if not names or client.name in names]
    if unknown := set(names) - {client.name for client in chosen}:
        raise SystemExit(f"no such client: {', '.join(sorted(unknown))}")
    print("SKIPPED the crash-report dialog of the browser clients: Relay does not serve it")

    relay = Path(os.environ["RELAY_BIN"])
    folder = installed.parent / "relay"
    tally = Tally()
    said = []
    for half, last in ((Behind, Behind.control), (InFront, InFront.outage)):
        try:
            under_test = half(binary, relay, folder, tally)
        except NotListening as error:
            tally.check(half.__name__, str(error))
            continue
        try:
            for client in chosen:
                try:
                    under_test.drive(client)
                except Malformed as error:
                    tally.check(client.name, str(error))
            last(under_test)
        finally:
            under_test.end()
        said += under_test.mirror.output

    for failure in tally.failures:
        print(f"\nFAILED {failure}")
    if tally.failures and said:
        print("\nthe mirror said:\n" + "".join(said))
    print(f"\n{tally.passed} passed, {len(tally.failures)} failed")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
