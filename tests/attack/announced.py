"""Bodies that are only announced: 1,290 connections, 54 bytes each, and nothing more. No key is needed. They
took the whole memory budget of a worker, and everybody else was answered 503 for a minute."""

import time

from lib import KEY, MIB, Honest, Mirror, Sink, Verdict, post

# How large a body is announced, and by how many connections: large ones first, small ones for the rest.
ANNOUNCED = [(1 << 21, 1020), (1 << 18, 30), (1 << 15, 80), (1 << 12, 80), (64, 80)]


def attack(what: str, verdict: Verdict, key: str | None, config: str) -> None:
    with Sink() as sink, Mirror({KEY: [sink.dsn()]}, config) as mirror:
        honest = Honest(mirror)
        open_connections, sent = [], 0
        for length, count in ANNOUNCED:
            head = post(b"", key).replace(b"Content-Length: 0", b"Content-Length: %d" % length)
            for _ in range(count):
                open_connections.append(mirror.connect())
                open_connections[-1].sendall(head)
                sent += len(head)
        # The gauges are a second old at most.
        time.sleep(2.5)
        held = mirror.metric("sentry_mirror_request_memory_bytes")
        time.sleep(2)
        served = honest.stop()
        verdict.line(
            f"announced, {what}: {len(open_connections)} connections, {sent} bytes, hold {held / MIB:.0f} MiB of the budget",
            served,
            mirror,
            none_refused=served.refused == 0,
            nothing_held=held < 4 * MIB,
        )


verdict = Verdict()
attack("without a key", verdict, None, "workers: 1\n")
attack("with a public key", verdict, KEY, "workers: 1\n")
attack("in a small container", verdict, KEY, "workers: 1\nlimits: {memory_bytes: 16MiB, body_bytes: 8MiB, decoded_bytes: 8MiB}\n")
verdict.end()
