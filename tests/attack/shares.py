"""Bodies that stay: a silent outbound of one customer keeps them alive, a talkative one makes the mirror hold
its answers, and senders without a key begin uploads that they never end. Each filled the memory budget of a
worker, and everybody was answered 503. The budget is small here, so that the attack needs little time."""

import time

from lib import KEY, MIB, OTHER_KEY, Honest, Mirror, Sink, Stream, Upstream, Verdict, envelope, post

CONFIG = "workers: 1\nlimits: {memory_bytes: 64MiB, body_bytes: 16MiB, decoded_bytes: 16MiB}\n"
SECONDS = 5


def stay_silent(connection) -> None:
    while connection.recv(1 << 18):
        pass


def talk_without_end(connection) -> None:
    Stream(connection).message()
    talkative.answered += 1
    length = [1_000_000, 100_000, 20_000, 5_000][talkative.answered % 4]
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length + bytes(length - 1))
    connection.recv(1)


def flood(mirror: Mirror, requests: list[bytes]) -> list:
    """Sends requests, each over a connection of its own, without waiting for answers."""
    end, number, open_connections = time.monotonic() + SECONDS, 0, []
    while time.monotonic() < end:
        for request in requests:
            open_connections.append(mirror.connect())
            try:
                open_connections[-1].sendall(request)
            except OSError:
                # It was refused before it was there.
                open_connections.pop().close()
            number += 1
        # Some are open at a time; others make room.
        while len(open_connections) > 400:
            open_connections.pop(0).close()
        time.sleep(0.02)
    return open_connections


def attack(what: str, verdict: Verdict, outbound, requests: list[bytes]) -> None:
    with Sink() as sink:
        routes = {KEY: [sink.dsn()], OTHER_KEY: [outbound(sink)]}
        with Mirror(routes, CONFIG) as mirror:
            honest = Honest(mirror)
            open_connections = flood(mirror, requests)
            time.sleep(2)
            held = mirror.metric("sentry_mirror_request_memory_bytes")
            served = honest.stop()
            lost = mirror.metric("sentry_mirror_deliveries_total", outbound=f"http://0f0f…@127.0.0.1:{sink.port}/1")
            lost -= mirror.metric(
                "sentry_mirror_deliveries_total", outbound=f"http://0f0f…@127.0.0.1:{sink.port}/1", outcome="2xx"
            )
            verdict.line(
                f"shares, {what}: {held / MIB:.0f} of 64 MiB held",
                served,
                mirror,
                none_refused=served.refused == 0,
                none_lost=lost == 0,
            )
            del open_connections


verdict = Verdict()
silent, talkative = Upstream(stay_silent), Upstream(talk_without_end)
talkative.answered = 0
# Small ones take what large ones leave.
SIZES = [500_000, 50_000, 5_000, 500, 500]
bodies = [post(envelope(OTHER_KEY, size), OTHER_KEY) for size in SIZES]
attack("a silent outbound", verdict, lambda _: silent.dsn(), bodies)
small = [post(envelope(OTHER_KEY, 100), OTHER_KEY)] * 3
attack("answers that do not end", verdict, lambda _: talkative.dsn(), small)
tunnels = [post(bytes(size), None, path="/tunnel")[:-1] for size in [1_500_000, *SIZES]]
attack("uploads without a key", verdict, lambda sink: sink.dsn(2), tunnels)
verdict.end()
