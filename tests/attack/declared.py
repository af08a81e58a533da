"""Answers that are only declared: an outbound of one customer answers every request with a head that declares
up to 1 MiB, and sends nothing more. With 1,030 small requests to it, 274 KB, the whole memory budget of a
worker was taken for `timeouts.exchange`, and the other customers were answered 503."""

import time

from lib import KEY, MIB, OTHER_KEY, Honest, Mirror, Sink, Stream, Upstream, Verdict, envelope, post

REQUESTS = 1030
LENGTHS = [1 << 20, 1 << 20, 1 << 18, 1 << 20, 1 << 20, 1 << 16, 1 << 20, 1 << 20, 1 << 14, 5000]


def declare(connection) -> None:
    upstream.answered += 1
    length = LENGTHS[upstream.answered % len(LENGTHS)]
    Stream(connection).message()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
    connection.recv(1)


verdict = Verdict()
upstream = Upstream(declare)
upstream.answered = 0
with Sink() as sink:
    routes = {KEY: [sink.dsn()], OTHER_KEY: [upstream.dsn(1), upstream.dsn(2)]}
    with Mirror(routes) as mirror:
        honest = Honest(mirror)
        request, open_connections = post(envelope(OTHER_KEY, 10), OTHER_KEY), []
        for number in range(REQUESTS):
            open_connections.append(mirror.connect())
            open_connections[-1].sendall(request)
            # A listener of Python takes some time for so many connections.
            time.sleep(0.002)
        time.sleep(2.5)
        held = mirror.metric("sentry_mirror_request_memory_bytes")
        time.sleep(2)
        served = honest.stop()
        verdict.line(
            f"declared: {REQUESTS} requests, {REQUESTS * len(request)} bytes, hold {held / MIB:.0f} MiB of the budget",
            served,
            mirror,
            none_refused=served.refused == 0,
            little_held=held < 64 * MIB,
        )
verdict.end()
