"""Relay as an outbound: it must accept all that the mirror makes of the SDKs' requests.

    SDK -> tap -> mirror -> tap A -> Relay A -> sink A
                         -> tap B -> Relay B -> sink B

Relay compares the key and the project of an envelope's header with those of the request, and says
400 where they differ. So a 200 says that the mirror has rewritten all of them, by the judgement of
the program that the outbounds run.
"""

import re
import secrets
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from clients import Client
from expected import Dsn, Outgoing, difference, outgoing
from lines import ROW, SECONDS, answered, is_passed_on, kind, plain, post, record
from mirror import Mirror
from relay import Relay
from sink import Sink
from suite import Tally, pair
from tap import Exchange, Tap
from wire import items


@dataclass(frozen=True)
class Outbound:
    """A Relay, what is before and behind it, and the DSN by which the mirror sends to it."""

    name: str
    sink: Sink
    relay: Relay
    tap: Tap
    dsn: Dsn


class Behind:
    """The mirror and its two outbounds."""

    def __init__(self, mirror: Path, relay: Path, folder: Path, tally: Tally) -> None:
        self.tally = tally
        self.outbounds = [
            outbound("A", "11", "", relay, folder),
            outbound("B", "22", "outboundsecret", relay, folder),
        ]
        self.inbound = Dsn(secrets.token_hex(16), "127.0.0.1:1", "42")
        self.mirror = Mirror(mirror, self.inbound, [each.dsn for each in self.outbounds], folder)
        print("behind the mirror: what Relay A and B answer, and what the SDK is told")
        print(ROW.format("client", "items", "encoding", "A", "B", "SDK"))

    def control(self) -> None:
        """See that Relay would notice: a header that names another key, or another project."""
        dsn = self.outbounds[0].dsn
        for what, header_dsn in (
            ("key", Dsn(self.inbound.key, dsn.authority, dsn.project)),
            ("project", Dsn(dsn.key, dsn.authority, self.inbound.project)),
        ):
            body = b'{"dsn":"%s"}\n{"type":"event"}\n{}\n' % str(header_dsn).encode()
            target = f"/api/{dsn.project}/envelope/?sentry_key={dsn.key}"
            reply = post(self.outbounds[0].relay.port, target, body)
            noticed = reply and reply.status == "400" and b"mismatch" in reply.sent_body
            problem = "" if noticed else f"Relay does not mind: {reply}"
            cell = self.tally.check(f"control, {what} in the header differs", problem)
            print(f"control: another {what} in the header is refused: {cell}")

    def drive(self, client: Client) -> None:
        """Run one client to its end, then see what became of each request at each Relay."""
        dsn, exchanges = record(client, self.mirror.port, self.inbound, self.tally)
        exchanges = [x for x in exchanges if is_passed_on(x)]
        at_relays = []
        for each in self.outbounds:
            wanted = [outgoing(exchange.request, dsn, each.dsn) for exchange in exchanges]
            heard = answered(each.tap, len(wanted))
            extra = f"{len(heard)} instead of {len(wanted)}" if len(heard) != len(wanted) else ""
            self.tally.check(f"{client.name}, requests to Relay {each.name}", extra)
            at_relays.append(list(zip(wanted, pair(wanted, heard))))
            self.passed_on(client, each, wanted)
        for exchange, *pairs in zip(exchanges, *at_relays):
            self.compare(client, exchange, pairs)

    def compare(
        self, client: Client, exchange: Exchange, pairs: list[tuple[Outgoing, Exchange | None]]
    ) -> None:
        """Check one request at every Relay, and that the SDK was told what Relay A said."""
        request = exchange.request
        kinds = kind(request, pairs[0][0])
        what = f"{client.name}, {kinds}"
        for each, (wanted, heard) in zip(self.outbounds, pairs):
            self.tally.check(f"{what} at Relay {each.name}", relay_problem(wanted, heard))
        answers = [heard.reply if heard else None for _, heard in pairs]
        told, wanted = (x and (x.status, x.plain_body()) for x in (exchange.reply, answers[0]))
        problem = "" if told == wanted else f"{told} is not what Relay A answered, {wanted}"
        self.tally.check(f"{what}, reply", problem)
        statuses = [x.status if x else "none" for x in (*answers, exchange.reply)]
        print(ROW.format(client.name, kinds, request.encoding, *statuses), flush=True)

    def passed_on(self, client: Client, outbound: Outbound, wanted: list[Outgoing]) -> None:
        """See that Relay passed on everything it took, each envelope with the same items."""
        arrived = outbound.sink.claim(len(wanted), SECONDS)
        what = f"{client.name}, passed on by Relay {outbound.name}"
        lost = f"{len(arrived)} of {len(wanted)}" if len(arrived) != len(wanted) else ""
        self.tally.check(what, lost)
        took = Counter("+".join(items(each.body)) for each in wanted if each.is_envelope)
        sent = Counter(
            "+".join(items(plain(each.request).sent_body))
            for each in arrived
            if "/envelope/ " in each.request.start_line
        )
        lost = took - sent
        self.tally.check(f"{what}, items", f"missing: {dict(lost)}" if lost else "")

    def end(self) -> None:
        """Stop everything and see that nothing is left over."""
        self.tally.check("mirror, end", self.mirror.stop())
        for each in self.outbounds:
            self.tally.check(f"Relay {each.name}, end", each.relay.stop())
            problems = each.tap.problems + each.sink.problems
            problems += [f"late: {x.request.start_line}" for x in each.sink.claim(0, 0)]
            self.tally.check(f"Relay {each.name}, connections", "; ".join(problems))


def outbound(name: str, project: str, secret: str, binary: Path, folder: Path) -> Outbound:
    """Start a Relay with a sink behind it and a tap before it."""
    sink = Sink(name)
    relay = Relay(binary, sink.port, folder / f"relay-{name}")
    tap = Tap(relay.port)
    dsn = Dsn(secrets.token_hex(16), f"127.0.0.1:{tap.port}", project, secret)
    return Outbound(name, sink, relay, tap, dsn)


def relay_problem(wanted: Outgoing, heard: Exchange | None) -> str:
    """What is wrong with a request as Relay got it, or with Relay's answer."""
    if not heard:
        return "not delivered"
    if not heard.reply:
        return "not answered"
    if not re.fullmatch("200" if wanted.is_envelope else "2..", heard.reply.status):
        return f"{heard.reply.start_line}, {heard.reply.plain_body()!r}"
    return difference(heard.request, wanted)
