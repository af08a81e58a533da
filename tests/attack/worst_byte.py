"""The worst byte: what a megabyte of each kind of input costs the mirror, in seconds of CPU.

`worst_byte.py [SECONDS]` sends each kind for so long and prints a table for the documents. What costs more
than twenty times normal traffic needs a bound that stops it, which the table names; without one the script
ends with status 1. Brotli for honest bodies needs the package `brotli`, zstd the package `zstandard`.
"""

import gzip
import json
import sys
import threading
import time
import zlib

import crafted
from lib import KEY, MIB, Mirror, Sink, Stream, Upstream, envelope, post

SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 2
FACTOR_MAX = 20

HALF = "decoding has half of a worker's time, the cheapest bodies first"
TURNS = "turns of 0.5 ms with pauses of 1 ms between them"
PACKETS = "`timeouts.head`, and each byte is a packet of its own"
RATIO = "`limits.decoded_ratio`, and half of a worker's time"

NAMES = "attachment default feedback log_byte log_item metric_bucket monitor profile profile_chunk replay session span"
NAMES = ";".join([*NAMES.split(), *(f"category_{at}" for at in range(50))])
quota = lambda number: f"{60 + number}:{NAMES}:scope_{number}"
LIMITS = ", ".join(quota(number) for number in range(32))


def event(size: int = 1000) -> bytes:
    """An envelope as SDKs send it: text that compresses by about four."""
    words = [f"frame {number * 7919 % 10007} in module_{number % 13}.function_{number % 31}" for number in range(size // 40)]
    payload = json.dumps({"event_id": "9ec79c33ec9942ab8353589fcb2e04dc", "frames": words})
    head = {"event_id": "9ec79c33ec9942ab8353589fcb2e04dc", "dsn": f"http://{KEY}@mirror.example/1"}
    return f"{json.dumps(head)}\n{json.dumps({'type': 'event', 'length': len(payload)})}\n{payload}\n".encode()


def coded(coding: str, body: bytes, key: str | None = KEY, path: str = "/api/1/envelope/") -> bytes:
    """A request with a body in a coding."""
    return post(body, key, f"Content-Encoding: {coding}\r\n", path)


def chunked(body: bytes, size: int) -> bytes:
    """A request whose body comes in chunks of this size."""
    head = post(b"", KEY).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def limited(connection) -> None:
    """Answers all requests with many rate limits."""
    stream = Stream(connection)
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Sentry-Rate-Limits: {LIMITS}\r\n\r\n{{}}".encode()
    while stream.message():
        connection.sendall(answer)


class Row:
    """A kind of input: the requests that are sent in turn, whole or `pieces` bytes at a time."""

    def __init__(self, what: str, requests: list[bytes], bound: str = "", pieces: int = 0, options: str = "") -> None:
        self.what, self.requests, self.bound = what, requests, bound
        self.pieces, self.options = pieces, options

    def send(self, mirror: Mirror) -> tuple[int, int]:
        """Sends them over two connections; says how many there were, and how many bytes in them."""
        end = time.monotonic() + SECONDS
        sent = []

        def one() -> None:
            requests = bytes_ = 0
            connection, stream = None, None
            while time.monotonic() < end:
                for request in self.requests:
                    try:
                        if not connection:
                            connection = mirror.connect()
                            stream = Stream(connection)
                        for at in range(0, len(request), self.pieces or len(request)):
                            connection.sendall(request[at : at + (self.pieces or len(request))])
                        head, _ = stream.message()
                        if b"connection: close" in head.lower():
                            connection = None
                    except (OSError, EOFError):
                        connection = None
                    requests += 1
                    bytes_ += len(request)
            sent.append((requests, bytes_))

        threads = [threading.Thread(target=one) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(one[0] for one in sent), sum(one[1] for one in sent)


def normal() -> list[Row]:
    """Honest traffic: single events."""
    small, body = event(), event(20_000)
    rows = [
        Row("an event of 1 KB, as it is", [post(small)]),
        Row("the same, gzip", [coded("gzip", gzip.compress(small))]),
        Row("an event of 20 KB, as it is", [post(body)]),
    ]
    codings = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}
    codings["br"] = lambda text: crafted.package("brotli").compress(text, quality=4)
    codings["zstd"] = lambda text: crafted.package("zstandard").compress(text)
    rows += [Row(f"the same, {name}", [coded(name, make(body))]) for name, make in codings.items()]
    return rows


def attacks() -> list[Row]:
    """Input that is made to be laborious."""
    tiny = b"{}\n" + b'{"type":"span"}\n\n' * (1 << 20)
    deep = b"[" * 127 + b"]" * 127
    nested = b'{"resourceSpans":[' + b",".join([deep] * 20_000) + b"]}"
    header = b'{"a":[' + b'"",' * 86_000 + b'""]}\n'
    otlp = lambda body: post(body, KEY, "Content-Type: application/json\r\n", "/api/1/integration/otlp/v1/traces/")
    share = "{sample_rate: 0.5}"
    return [
        Row("br, 256 codes for each byte", [coded("br", crafted.brotli_codes(MIB))], HALF),
        Row("br, the same, 500 bytes each", [coded("br", crafted.brotli_codes(500))], HALF),
        Row("deflate, blocks of nothing", [coded("deflate", crafted.deflate_tables(MIB))], HALF),
        Row("gzip, the same", [coded("gzip", crafted.gzip_tables(MIB))], HALF),
        Row("x-gzip, empty members", [coded("x-gzip", crafted.gzip_members(MIB))], HALF),
        Row("zstd, three tables for each block", [coded("zstd", crafted.zstd_tables(MIB))], HALF),
        Row("zstd, empty frames", [coded("zstd", crafted.zstd_empty_frames(MIB))], HALF),
        *(Row(f"{name}, a bomb of 255 MiB", [coded(name, crafted.bomb(name, 255))], RATIO) for name in ("gzip", "deflate", "br", "zstd")),
        Row("gzip, a bomb without a key", [coded("gzip", crafted.bomb("gzip", 255), None, "/tunnel")], RATIO),
        Row("gzip, a header of 256 KiB", [coded("gzip", gzip.compress(header), None, "/tunnel")], "`limits.envelope_header_bytes`: 1.5 ms at a time"),
        Row("a head, byte by byte", [post(event())[:150] + b"\r\n\r\n"], PACKETS, pieces=1),
        Row("blank lines before a head, byte by byte", [b"\r\n" * 200 + b"GET /health HTTP/1.1\r\nHost: m\r\n\r\n"], PACKETS, pieces=1),
        Row("a head of 100 lines", [post(b"{}\n", KEY, "".join(f"X-{number}: {number}\r\n" for number in range(90)))]),
        Row("chunks of one byte", [chunked(event(100_000), 1)]),
        Row("a million tiny items, a share wanted", [post(tiny)], options=share),
        Row("the same, gzip", [coded("gzip", gzip.compress(tiny))], RATIO, options=share),
        Row("OTLP, nested deep, a share wanted", [otlp(nested)], options=share),
        Row("the same, gzip", [otlp(b"").replace(b"Content-Length: 0\r\n\r\n", b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(nested))) + gzip.compress(nested)], TURNS + "; `limits.decoded_ratio`", options=share),
    ]


def cost(mirror: Mirror, row: Row) -> tuple[float, float]:
    """Seconds of CPU per MB of input, and per request."""
    began = mirror.cpu()
    requests, sent = row.send(mirror)
    time.sleep(0.2)
    cpu = mirror.cpu() - began
    return cpu / (sent / 1e6), cpu / requests


def main() -> None:
    print("| input | CPU per MB | times normal | CPU per request | what stops it |\n| --- | --- | --- | --- | --- |")
    missed, usual = [], 0.0
    with Sink() as sink:
        routes = lambda options: {KEY: [sink.dsn(), {"dsn": sink.dsn(2), **({"sample_rate": 0.5} if options else {})}]}
        for number, row in enumerate([*normal(), *attacks()]):
            with Mirror(routes(row.options)) as mirror:
                per_mb, per_request = cost(mirror, row)
            usual = usual or per_mb
            report(row.what, per_mb, per_request, usual, row.bound, missed)
    upstreams = [Upstream(limited), Upstream(limited)]
    with Mirror({KEY: [upstream.dsn() for upstream in upstreams]}) as mirror:
        row = Row("", [post(event())])
        row.send(mirror)
        _, per_request = cost(mirror, row)
        # What an outbound sends counts here.
        per_mb = per_request / (2 * len(LIMITS) / 1e6)
        report("32 quotas of 62 names from each of two upstreams", per_mb, per_request, usual, "", missed)
    if missed:
        sys.exit(f"without a bound: {', '.join(missed)}")


def report(what: str, per_mb: float, per_request: float, usual: float, bound: str, missed: list[str]) -> None:
    """Prints a line of the table."""
    factor = per_mb / usual
    if factor > FACTOR_MAX and not bound:
        missed.append(what)
    stops = bound if factor > FACTOR_MAX else ""
    print(f"| {what} | {per_mb:.3f} s | {factor:.1f} | {1e3 * per_request:.2f} ms | {stops} |", flush=True)


if __name__ == "__main__":
    main()
