"""Real SDKs through the real binary: every sink must receive what the SDK sent, but for the keys.

    SDK -> tap -> mirror -> sink A (the primary), sink B

`run` prepares the SDKs and calls this; README.md tells how it works and how to add a client.
"""

import json
import re
import secrets
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from categories import counted, of_mirror
from clients import Client, clients
from expected import Dsn, Outgoing, difference, outgoing, receivers
from mirror import Mirror, NotListening, clean_environment
from sink import Delivery, Sink
from tap import Exchange, Tap
from wire import Malformed, Message, items

CLIENT_SECONDS = 60
ARRIVAL_SECONDS = 10
ROW = "{:14} {:21} {:33} {:16} {:9} {:8} {:>6} {:>6}  {:6} {:5} {:5}"
COLUMNS = ("client", "data", "items", "key sites", "encoding", "framing", "wire", "plain")
COLUMNS += ("reply", "A", "B")

# What a sink must receive and what it did; None if the request is not for it.
AtSink = tuple[Outgoing, Delivery | None] | None


@dataclass(frozen=True)
class Step:
    """What a client program has announced to send."""

    data: str
    items: str
    encoding: str
    framing: str

    def __str__(self) -> str:
        return f"{self.data} ({self.items}, {self.encoding}, {self.framing})"


class Tally:
    """The checks so far. A problem is kept to be read under the table."""

    def __init__(self) -> None:
        self.passed = 0
        self.failures: list[str] = []

    def check(self, what: str, problem: str) -> str:
        """Count one check, which holds if there is no problem. Returns its cell in the table."""
        if problem:
            self.failures.append(f"{what}: {problem}")
            return "FAIL"
        self.passed += 1
        return "ok"


class Suite:
    """The mirror under test, its two sinks and the checks made on them."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self.tally = Tally()
        self.sinks = [Sink("a"), Sink("b")]
        self.items: list[Counter[str]] = [Counter(), Counter()]
        a, b = (f"127.0.0.1:{sink.port}" for sink in self.sinks)
        self.inbound = Dsn(secrets.token_hex(16), "127.0.0.1:1", "42")
        self.outbounds = [
            Dsn(secrets.token_hex(16), a, "11"),
            Dsn(secrets.token_hex(16), b, "22", secret="outboundsecret", prefix="/some/prefix"),
        ]
        self.mirror = Mirror(binary, self.inbound, self.outbounds, folder)

    def drive(self, client: Client) -> None:
        """Run one client to its end, then compare all that it sent with all that arrived."""
        tap, dsn = self.line(client)
        steps, problem = run_program(client, dsn)
        steps = [self.at_tap(step) for step in steps]
        self.tally.check(f"{client.name}, program", problem)
        settled = tap.settle(ARRIVAL_SECONDS)
        tap.close()
        problem = "; ".join(tap.problems) or ("" if settled else "an exchange was not finished")
        self.tally.check(f"{client.name}, connections", problem)

        deliveries = []
        for outbound, sink, items_at_sink in zip(self.outbounds, self.sinks, self.items):
            sent = [x for x in tap.exchanges if outbound in receivers(x.request, self.outbounds)]
            wanted = [outgoing(exchange.request, dsn, outbound) for exchange in sent]
            arrived = sink.claim(len(wanted), ARRIVAL_SECONDS)
            for delivery in arrived:
                items_at_sink.update(counted(delivery.request, outbound.prefix))
            deliveries.append(dict(zip(sent, zip(wanted, pair(wanted, arrived)))))
            extra = f"{len(arrived)} instead of {len(wanted)}" if arrived[len(wanted) :] else ""
            self.tally.check(f"{client.name}, deliveries to sink {sink.name}", extra)
        for exchange in tap.exchanges:
            self.compare(client, exchange, steps, [each.get(exchange) for each in deliveries])
        print(f"{client.name}: {len(tap.exchanges)} requests, connections: {tap.connections}\n")
        missing = ", ".join(str(step) for step in steps)
        self.tally.check(f"{client.name}, announced", missing and f"not sent: {missing}")

    def line(self, client: Client) -> tuple[Tap, Dsn]:
        """A tap before the mirror, and the DSN with which the client gets there."""
        tap = Tap(self.mirror.port)
        own = replace(self.inbound, authority=f"127.0.0.1:{tap.port}", secret=client.secret)
        return tap, own

    def at_tap(self, step: Step) -> Step:
        """What of an announced step is to be heard at the tap: all, if nobody is in between."""
        return step

    def compare(
        self, client: Client, exchange: Exchange, steps: list[Step], at_sinks: list[AtSink]
    ) -> None:
        """Check one request at every sink, and its reply; strike off the step that it was."""
        request = exchange.request
        plain = request.plain_body()
        wanted, _ = at_sinks[0] or (None, None)
        if wanted and wanted.is_envelope:
            kinds = "+".join(items(plain))
        else:
            kinds = request.content_type or request.method
        sites = "+".join(wanted.key_sites(self.outbounds[0])) or "none" if wanted else "-"
        data = strike_off(steps, kinds, request)

        what = f"{client.name}, {data}, {kinds}"
        cells = [self.tally.check(f"{what}, reply", reply_problem(exchange, at_sinks[0]))]
        for sink, at_sink in zip(self.sinks, at_sinks):
            if not at_sink:
                cells.append("-")  # That it is not there is seen by the count of deliveries.
                continue
            wanted, delivery = at_sink
            problem = difference(delivery.request, wanted) if delivery else "not delivered"
            cells.append(self.tally.check(f"{what} at sink {sink.name}", problem))
        row = (client.name, data, kinds, sites, request.encoding, request.framing)
        row += (len(request.sent_body), len(plain), *cells)
        print(ROW.format(*row).rstrip(), flush=True)

    def end(self) -> None:
        """Compare counters, stop the mirror, and see that nothing is left over."""
        for outbound, sink, items_at_sink in zip(self.outbounds, self.sinks, self.items):
            problem = self.items_problem(outbound, items_at_sink)
            self.tally.check(f"items at sink {sink.name}", problem)
            print(f"items at sink {sink.name}: {dict(sorted(items_at_sink.items()))}")
        self.tally.check("mirror, end", self.mirror.stop())
        for sink in self.sinks:
            late = [delivery.request.start_line for delivery in sink.claim(0, 0)]
            unasked = [f"deliveries that no request asked for: {late}"] if late else []
            self.tally.check(f"sink {sink.name}", "; ".join(sink.problems + unasked))

    def items_problem(self, outbound: Dsn, at_sink: Counter[str]) -> str:
        """What is wrong with the mirror's counters of items, which follow the sink's answers."""
        deadline = time.monotonic() + ARRIVAL_SECONDS
        while True:
            delivered, others = of_mirror(self.mirror.admin, outbound.authority)
            if others:
                return f"not delivered: {dict(others)}"
            if delivered == at_sink:
                return ""
            if time.monotonic() > deadline:
                return f"the mirror has counted {dict(delivered)}, and the sink {dict(at_sink)}"
            time.sleep(0.1)


def pair(wanted: list[Outgoing], arrived: list[Delivery]) -> list[Delivery | None]:
    """For every wanted delivery the one that arrived.

    Deliveries may overtake one another, so each is known by its bytes. One that is equal to none
    of the wanted is given to one that has none, in order, for its difference to be shown.
    """
    left = list(arrived)
    paired: list[Delivery | None] = []
    for want in wanted:
        same = next((each for each in left if not difference(each.request, want)), None)
        if same:
            left.remove(same)
        paired.append(same)
    return [each or (left.pop(0) if left else None) for each in paired]


def strike_off(steps: list[Step], kinds: str, request: Message) -> str:
    """Take the step that announced this request off the list; the name of its data."""
    shape = (kinds, request.encoding, request.framing)
    step = next((s for s in steps if (s.items, s.encoding, s.framing) == shape), None)
    if not step:
        return "(not announced)"
    steps.remove(step)
    return step.data


def reply_problem(exchange: Exchange, at_primary: AtSink) -> str:
    """What is wrong with what the SDK got back."""
    request, reply = exchange.request, exchange.reply
    if not reply:
        return "none"
    if not reply.start_line.startswith("HTTP/1.1 "):
        return f"not in our version of HTTP: {reply.start_line}"
    if reply.value("access-control-allow-origin") != "*":
        return f"{reply.start_line} without Access-Control-Allow-Origin: *"
    if request.keeps_alive and reply.value("connection") == "close":
        return f"{reply.start_line} ends a connection that the SDK wants to use again"
    if not at_primary:
        return own_reply_problem(request, reply)
    _, delivery = at_primary
    if not delivery:
        return f"{reply.start_line}, {reply.plain_body()!r} although nothing reached sink a"
    return passed_on_problem(request, reply, delivery)


def own_reply_problem(request: Message, reply: Message) -> str:
    """What is wrong with a reply that is for the mirror alone to give."""
    body = reply.plain_body()
    if request.method == "OPTIONS":
        # Whether it permits enough the browser tells, by what it sends then.
        return "" if reply.status == "200" else f"{reply.start_line}, {body!r} to a preflight"
    if reply.status != "404":
        return f"{reply.start_line}, {body!r} instead of 404"
    if not re.fullmatch(rb'\{"detail":"[^"]+"\}', body):
        return f"{body!r} is no detail"
    return ""


def passed_on_problem(request: Message, reply: Message, primary: Delivery) -> str:
    """What is wrong with a reply that must be the primary sink's answer."""
    body = reply.plain_body()
    if reply.status != primary.status:
        return f"{reply.start_line}, {body!r} instead of {primary.status}"
    if reply.value("content-type") != primary.content_type:
        return f"Content-Type is {reply.value('content-type')!r}"
    if request.asks_for_dialog:
        return script_problem(body, primary.answer, request)
    if body != primary.answer:
        return f"{body!r} is not what sink a answered"
    return ""


def script_problem(script: bytes, original: bytes, request: Message) -> str:
    """What is wrong with the dialog's script: it must post to the URL from which the SDK got it."""
    literal = re.compile(rb'(?<=var endpoint = /\*\*/)"[^"]*"')
    endpoint = literal.search(script)
    if not endpoint:
        return "the script names no endpoint"
    url = f"http://{request.value('host')}{request.target}"
    if json.loads(endpoint[0]) != url:
        return f"the script posts to {endpoint[0]!r} instead of {url}"
    if re.search(rb"[&<>']", endpoint[0]):
        return f"the endpoint is not safe in HTML: {endpoint[0]!r}"
    if literal.sub(b"", script) != literal.sub(b"", original):
        return "the script differs from sink a's in more than the endpoint"
    return ""


def run_program(client: Client, dsn: Dsn) -> tuple[list[Step], str]:
    """The steps that the client announced, and what went wrong."""
    try:
        done = subprocess.run(
            client.command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLIENT_SECONDS,
            env=clean_environment() | {"SENTRY_DSN": str(dsn)},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [], str(error)
    try:
        steps = [Step(*json.loads(line)) for line in done.stdout.splitlines()]
    except (TypeError, ValueError) as error:
        return [], f"unexpected output ({error}): {done.stdout}{done.stderr}"
    if done.returncode != 0:
        return steps, f"exit code {done.returncode}: {done.stderr}"
    return steps, "" if steps else f"announced nothing: {done.stderr}"


def main(suite_of=Suite) -> int:
    """Run a suite as the arguments say."""
    if len(sys.argv) < 3:
        raise SystemExit("usage: suite.py BINARY INSTALLED [CLIENT...]; normally called by `run`")
    binary, installed, names = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    chosen = [client for client in clients(installed) if not names or client.name in names]
    if unknown := set(names) - {client.name for client in chosen}:
        raise SystemExit(f"no such client: {', '.join(sorted(unknown))}")

    try:
        suite = suite_of(binary, installed)
    except NotListening as error:
        print(f"FAILED start: {error}\n0 passed, 1 failed")
        return 1
    tally = suite.tally
    try:
        print(ROW.format(*COLUMNS).rstrip())
        for client in chosen:
            try:
                suite.drive(client)
            except Malformed as error:
                tally.check(client.name, str(error))
    finally:
        suite.end()

    for failure in tally.failures:
        print(f"\nFAILED {failure}")
    if tally.failures:
        print("\nthe mirror said:\n" + "".join(suite.mirror.output))
    print(f"\n{tally.passed} passed, {len(tally.failures)} failed")
    return 1 if tally.failures or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
