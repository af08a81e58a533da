"""An outbound and a client whose words end in the log, the access log and the status page of the operator.

Every answer has line ends, escape sequences, controls of the direction of writing, and the outbound's own key and
secret in several spellings. What the operator sees must have none of them.
"""

import json
import re
import time
import urllib.request

from lib import KEY, OTHER_KEY, OUT_KEY, Honest, Mirror, Sink, Stream, Upstream, Verdict, post

SECONDS = 4
SECRET = "5ec4e7" * 5
SPELLINGS = [
    OUT_KEY,
    SECRET,
    "".join(f"%{ord(character):02x}" for character in OUT_KEY),
    "".join(f"\\u{ord(character):04x}" for character in OUT_KEY),
]
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
INJECTED = "2026-11-30T00:00:00.000000Z ERROR injected"
EVIL = f"no\n{INJECTED}\r\n\x1b[31mred \x9b1m \x07\x00\x7f \u202ertl\u2066 \u2028\u2029 \ufeff<script>"

count = 0


def serve(connection) -> None:
    global count
    stream = Stream(connection)
    while True:
        stream.message()
        count += 1
        body = f"{EVIL}{SPELLINGS[count % 4]}".encode()
        # Refusals are told when they change.
        status = (403, 200, 500, 401)[count // 2 % 4]
        fields = f"X-Sentry-Rate-Limits: 1:\u202e{SPELLINGS[0]};error:key\r\n" if status == 401 else ""
        connection.sendall(f"HTTP/1.1 {status} X\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def faults(text: str) -> set[str]:
    found = {"unsafe character" for _ in UNSAFE.finditer(text)}
    found |= {"injected line" for line in text.split("\n") if line.startswith(INJECTED)}
    return found | {"credential" for spelling in SPELLINGS if spelling in text}


def words(outbound: dict) -> str:
    """What the status page shows of it that is the upstream's, where a line end is one more control character."""
    categories = [name for limit in outbound["rate_limits"] for name in limit["categories"]]
    return "".join([(outbound["last_error"] or {}).get("message", ""), *categories]).replace("\n", "\x00")


verdict = Verdict()
upstream = Upstream(serve)
outbound = upstream.dsn().replace(OUT_KEY, f"{OUT_KEY}:{SECRET}")
config = "workers: 1\nlog_filter: debug\n"
with Sink() as sink, Mirror({KEY: [sink.dsn()], OTHER_KEY: [outbound]}, config) as mirror:
    honest = Honest(mirror)
    end, requests, found = time.monotonic() + SECONDS, 0, set()
    while time.monotonic() < end:
        with mirror.connect() as connection:
            field = f"User-Agent: \u009b31m\r\nX-Odd: {EVIL[-9:]}\r\n"
            connection.sendall(post(b"{}", OTHER_KEY, field, "/api/1/store/"))
            Stream(connection).message()
        requests += 1
        if requests % 50 == 0:
            page = urllib.request.urlopen(f"http://127.0.0.1:{mirror.admin_port}/status").read()
            outbounds = [one for route in json.loads(page)["routes"] for one in route["outbounds"]]
            found |= {f"{fault} in status" for one in outbounds for fault in faults(words(one))}
    served = honest.stop()
    # Python reads a carriage return as the end of a line.
    found |= {f"{fault} in log" for fault in faults("".join(mirror.log))}
    told = sum("is rejecting requests" in line for line in mirror.log)
    verdict.line(
        f"logs: {requests} refusals, {told} told; seen: {sorted(found)}",
        served,
        mirror,
        nothing_seen=not found,
        told=told > 0,
    )
verdict.end()
