"""What both halves of the suite do with the lines between SDK, mirror and Relay."""

import re
import socket
import subprocess
from dataclasses import replace

from clients import Client
from expected import NOT_OFFERED, Dsn, Outgoing
from suite import Tally, run_program
from tap import Exchange, Tap
from wire import Malformed, Message, items, take

SECONDS = 20
ROW = "{:14} {:32} {:9} {:>7} {:>7} {:>7}"


def record(client: Client, target: int, inbound: Dsn, tally: Tally) -> tuple[Dsn, list[Exchange]]:
    """Run a client to its end against `target`: the DSN it was given, and all that was said."""
    tap = Tap(target)
    dsn = replace(inbound, authority=f"127.0.0.1:{tap.port}", secret=client.secret)
    steps, problem = run_program(client, dsn)
    tally.check(f"{client.name}, program", problem)
    settled = tap.settle(SECONDS)
    tap.close()
    problem = "; ".join(tap.problems) or ("" if settled else "an exchange was not finished")
    tally.check(f"{client.name}, connections", problem)
    missing = len(steps) - len(tap.exchanges)
    tally.check(f"{client.name}, announced", f"{missing} were not sent" if missing > 0 else "")
    return dsn, tap.exchanges


def answered(tap: Tap, count: int) -> list[Exchange]:
    """Take what was heard on a tap since the last time, once `count` exchanges are complete."""
    with tap.changed:
        tap.changed.wait_for(lambda: sum(bool(x.reply) for x in tap.exchanges) >= count, SECONDS)
        heard = list(tap.exchanges)
        tap.exchanges.clear()
        return heard


def is_passed_on(exchange: Exchange) -> bool:
    """Whether the mirror answers a request from what outbounds say, and not by itself."""
    request = exchange.request
    return request.method != "OPTIONS" and not NOT_OFFERED.match(request.start_line)


def post(port: int, target: str, body: bytes) -> Message | None:
    """Send an envelope on a connection of its own; the reply, if there is one."""
    head = f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n"
    buffer = bytearray()
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        while chunk := connection.recv(65536):
            buffer += chunk
    return take(buffer, "POST", ended=True)


def kind(request: Message, made: Outgoing) -> str:
    """What a request is called: the items of its envelope, or its endpoint; `made` is of it."""
    if made.is_envelope:
        return "+".join(items(request.plain_body()))
    method, target, _ = made.start_line.split(" ")
    endpoint = re.sub(r".*/api/\d+/", "", target.partition("?")[0])
    return f"{method} {re.sub('[0-9a-f]{32}', '*', endpoint)}"


def plain(request: Message) -> Message:
    """The same request without zstd, which is what Relay sends, on its body."""
    if request.encoding != "zstd":
        return request
    done = subprocess.run(["zstd", "-dcq"], input=request.sent_body, capture_output=True)
    if done.returncode:
        raise Malformed(f"body is not zstd: {done.stderr.decode()}")
    lines = tuple(x for x in request.lines if not re.match("content-encoding:", x, re.I))
    return replace(request, lines=lines, sent_body=done.stdout)
