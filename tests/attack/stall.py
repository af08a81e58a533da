"""Bodies that are laborious to decode, over four connections. `stall.py [SECONDS]` for each kind of body."""

import sys
import threading
import time

import crafted
from lib import KEY, MIB, Honest, Mirror, Sink, Stream, Verdict, envelope, post

CONNECTIONS = 4
SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 5


def attack(mirror: Mirror, requests: list[bytes], end: threading.Event) -> None:
    """Sends the requests over one connection, or over the next one where that is closed."""
    while not end.is_set():
        try:
            with mirror.connect() as connection:
                stream = Stream(connection)
                while not end.is_set():
                    for request in requests:
                        connection.sendall(request)
                        stream.message()
        except (OSError, EOFError):
            time.sleep(0.001)


def run(verdict: Verdict, sink: Sink, what: str, coding: str, bodies: list[bytes], key: str | None) -> None:
    """Attacks with bodies in a coding, with a key in the head or without."""
    field = f"Content-Encoding: {coding}\r\n" if coding else ""
    requests = [post(body, key, field) for body in bodies]
    with Mirror({KEY: [sink.dsn(), sink.dsn(2)]}) as mirror:
        honest = Honest(mirror)
        end = threading.Event()
        threads = [
            threading.Thread(target=attack, args=(mirror, requests, end), daemon=True)
            for _ in range(CONNECTIONS)
        ]
        for thread in threads:
            thread.start()
        time.sleep(SECONDS)
        served = honest.stop()
        end.set()
        verdict.line(
            f"stall, {what}",
            served,
            mirror,
            none_refused=served.refused == 0,
            median_under_5_ms=served.p50_ms <= 5,
            p99_under_50_ms=served.p99_ms <= 50,
        )


verdict = Verdict()
with Sink() as sink:
    for key in (None, KEY):
        where = "with a key" if key else "without a key"
        kinds = [
            ("br, 256 codes for each byte", "br", [crafted.brotli_codes(4 * MIB)]),
            ("deflate, blocks of nothing", "deflate", [crafted.deflate_tables(4 * MIB)]),
            ("gzip, empty members", "gzip", [crafted.gzip_members(4 * MIB)]),
            ("zstd, three tables for each block", "zstd", [crafted.zstd_tables(4 * MIB)]),
            ("small br bodies", "br", [crafted.brotli_codes(500), crafted.brotli_codes(2000)]),
            ("gzip bombs", "gzip", [crafted.bomb("gzip", 255)]),
            ("zstd bombs", "zstd", [crafted.bomb("zstd", 255)]),
        ]
        for what, coding, bodies in kinds:
            run(verdict, sink, f"{what}, {where}", coding, bodies, key)
    large = envelope(KEY, 200 * MIB)
    run(verdict, sink, "200 MiB as they are", "", [large], KEY)
verdict.end()
