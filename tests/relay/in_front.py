"""Relay as the SDKs' next hop: the mirror must understand all that it sends on.

    SDK -> tap -> Relay -> tap -> mirror -> sink A, sink B

Relay writes envelopes anew: zstd, with a DSN of the form `KEY:@host` in the header. When it loses
its upstream it keeps what it has, and asks GET /api/0/relays/live/ until the upstream is back.
"""

import json
import secrets
from dataclasses import replace
from pathlib import Path

from clients import Client
from expected import Dsn, difference, outgoing
from lines import ROW, SECONDS, answered, is_passed_on, kind, plain, post, record
from mirror import Mirror, NotListening
from relay import Relay
from sink import Sink
from suite import Tally, pair
from tap import Exchange, Tap

PROBE = "GET /api/0/relays/live/ HTTP/1.1"
REFUSED = "the mirror does not accept connections"


class InFront:
    """The Relay, the mirror and its two sinks."""

    def __init__(self, mirror: Path, relay: Path, folder: Path, tally: Tally) -> None:
        self.tally = tally
        self.sinks = [Sink("A"), Sink("B")]
        self.inbound = Dsn(secrets.token_hex(16), "127.0.0.1:1", "42")
        self.outbounds = [
            Dsn(secrets.token_hex(16), f"127.0.0.1:{sink.port}", project, prefix=prefix)
            for sink, project, prefix in zip(self.sinks, ("11", "22"), ("", "/some/prefix"))
        ]
        self._start = lambda port: Mirror(mirror, self.inbound, self.outbounds, folder, port)
        self.mirror = self._start(0)
        self.tap = Tap(self.mirror.port)
        # Relay names its upstream in the DSN.
        self.relayed = replace(self.inbound, authority=f"127.0.0.1:{self.tap.port}")
        try:
            self.relay = Relay(relay, self.tap.port, folder / "relay-in-front")
        except NotListening:
            self.mirror.stop()
            raise
        print("\nin front of the mirror: what it answers Relay, and whether sink A and B have it")
        print(ROW.format("client", "items", "encoding", "mirror", "A", "B"))

    def drive(self, client: Client) -> None:
        """Run one client to its end, then see what became of all that Relay made of it."""
        if client.name in ("node-tunnel", "browser-tunnel", "browser-ask"):
            print(f"SKIPPED {client.name}: Relay does not serve tunnels")
            return
        _, exchanges = record(client, self.relay.port, self.inbound, self.tally)
        exchanges = [x for x in exchanges if is_passed_on(x)]
        for exchange in exchanges:
            reply = exchange.reply
            problem = "" if reply and reply.status.startswith("2") else f"{reply}"
            self.tally.check(f"{client.name}, {exchange.request.start_line}, Relay", problem)
        self.deliveries(client.name, answered(self.tap, len(exchanges)), len(exchanges))

    def deliveries(self, name: str, heard: list[Exchange], count: int) -> None:
        """Check that both sinks have each request of Relay, and that the mirror said so."""
        short = f"{len(heard)} instead of {count}" if len(heard) != count else ""
        self.tally.check(f"{name}, requests of Relay", short)
        requests = [plain(exchange.request) for exchange in heard]
        columns = []
        for sink, outbound in zip(self.sinks, self.outbounds):
            wanted = [outgoing(request, self.relayed, outbound) for request in requests]
            arrived = sink.claim(len(wanted), SECONDS)
            extra = f"{len(arrived)} instead of {len(wanted)}" if arrived[len(wanted) :] else ""
            self.tally.check(f"{name}, deliveries to sink {sink.name}", extra)
            columns.append(list(zip(wanted, pair(wanted, arrived))))
        for exchange, request, *at_sinks in zip(heard, requests, *columns):
            made, encoding = at_sinks[0][0], exchange.request.encoding
            kinds = kind(request, made)
            if made.is_envelope:
                self.tally.check(f"{name}, {kinds}", envelope_problem(exchange, self.relayed))
            status = exchange.reply.status if exchange.reply else "none"
            problem = "" if status == "200" else f"{exchange.reply}"
            self.tally.check(f"{name}, {kinds}, the mirror's reply", problem)
            cells = [
                self.tally.check(
                    f"{name}, {kinds} at sink {sink.name}",
                    difference(arrived.request, wanted) if arrived else "not delivered",
                )
                for sink, (wanted, arrived) in zip(self.sinks, at_sinks)
            ]
            print(ROW.format(name, kinds, encoding, status, *cells), flush=True)

    def outage(self) -> None:
        """Take the mirror away for a moment: what Relay has accepted meanwhile must arrive."""
        self.tally.check("outage, mirror, end", self.mirror.stop())
        self.event("while the mirror is down")
        noticed = self.relay.has_said("network outage", SECONDS)
        self.tally.check("outage, noticed", "" if noticed else "Relay did not notice")
        self.mirror = self._start(self.mirror.port)
        # The probe, and the event. Before them: those that nobody answered.
        heard = [x for x in answered(self.tap, 2) if x.reply]
        probes = [x.reply.status for x in heard if x.request.start_line == PROBE]
        problem = "" if probes == ["200"] else f"probes answered {probes}"
        self.tally.check("outage, probe", problem)
        self.deliveries("after outage", [x for x in heard if x.request.start_line != PROBE], 1)
        self.event("after the mirror was down")
        self.deliveries("and then", answered(self.tap, 1), 1)
        refused = [problem for problem in self.tap.problems if problem.startswith(REFUSED)]
        self.tally.check("outage, real", "" if refused else "Relay never met a closed port")
        self.tap.problems = [x for x in self.tap.problems if x not in refused]

    def event(self, message: str) -> None:
        """Send an event to Relay, which must take it."""
        payload = json.dumps({"message": message}).encode()
        body = b'{}\n{"type":"event","length":%d}\n%b\n' % (len(payload), payload)
        target = f"/api/{self.inbound.project}/envelope/?sentry_key={self.inbound.key}"
        reply = post(self.relay.port, target, body)
        accepted = reply and reply.status == "200"
        self.tally.check(f"event {message}", "" if accepted else f"Relay answered {reply}")

    def end(self) -> None:
        """Stop everything and see that nothing is left over."""
        self.tally.check("Relay in front, end", self.relay.stop())
        self.tally.check("mirror, end", self.mirror.stop())
        problems = self.tap.problems + [x for sink in self.sinks for x in sink.problems]
        late = [x.request.start_line for sink in self.sinks for x in sink.claim(0, 0)]
        problems += [f"late: {late}"] if late else []
        self.tally.check("in front, connections", "; ".join(problems))


def envelope_problem(exchange: Exchange, dsn: Dsn) -> str:
    """Whether Relay wrote the envelope as this suite is to try it: zstd, and `KEY:@host`."""
    if exchange.request.encoding != "zstd":
        return f"Relay sent {exchange.request.encoding}"
    header = json.loads(plain(exchange.request).sent_body.partition(b"\n")[0])
    want = str(dsn).replace("@", ":@")
    return "" if header.get("dsn") == want else f"dsn is {header.get('dsn')!r}, not {want!r}"
