"""The crash-report dialog asked to give away where the mirror sends to, and what the page has sent along.

The primary answers as Sentry does, with the URL that it was asked for in a script, and in worse ways: a second
URL, escaped, with another status. The page's request names the inbound in every place there is.
"""

import base64
import json
import re
import time

from lib import KEY, OUT_KEY, Honest, Mirror, Stream, Upstream, Verdict

SECONDS = 4
IN_SECRET = "1e" * 16
OUT_SECRET = "5e" * 16
EVENT = "9ec79c33ec9942ab8353589fcb2e04dc"
QUERY = f"/api/embed/error-page/?dsn=http://{KEY}:{IN_SECRET}@mirror.example/1&eventId={EVENT}"
PAGES = base64.b64encode(f"{KEY}:{IN_SECRET}".encode()).decode()

heads: list[str] = []
shape = "sentry"


def script(url: str) -> str:
    return f'(function(){{var endpoint = /**/{json.dumps(url)};/**/ post(endpoint)}})'.replace("&", "\\u0026")


def answer(url: str) -> tuple[str, str, str]:
    """Status, content type and body."""
    coded = "".join(f"\\u{ord(character):04x}" for character in OUT_KEY + OUT_SECRET)
    return {
        "sentry": ("200 OK", "text/javascript", script(url)),
        "twice": ("200 OK", "text/javascript", script(url) * 2),
        "comment": ("200 OK", "text/javascript", f"{script(url)} // {url}"),
        "escaped": ("200 OK", "text/javascript", f'{script(url)}; k = "{coded}"'),
        "error": ("404 Not Found", "text/javascript", script(url)),
        "json": ("400 Bad Request", "application/json", json.dumps({"url": url})),
        "page": ("200 OK", "text/html", f"<script>{script(url)}</script>"),
    }[shape]


def serve(connection) -> None:
    stream = Stream(connection)
    while True:
        head = stream.message()[0].decode()
        if head.startswith("POST /api/1/envelope/"):
            status, content_type, body = "200 OK", "application/json", "{}"
        else:
            heads.append(head)
            host = re.search(r"(?im)^host: *(\S+)", head)[1]
            status, content_type, body = answer(f"http://{host}{head.split(' ')[1]}")
        fields = f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        connection.sendall(f"HTTP/1.1 {status}\r\n{fields}\r\n{body}".encode())


def ask(mirror: Mirror, method: str, target: str, fields: str = "") -> tuple[str, str]:
    """The head and the body of the reply."""
    with mirror.connect() as connection:
        request = f"{method} {target} HTTP/1.1\r\nHost: mirror.example\r\n{fields}Content-Length: 0\r\n\r\n"
        connection.sendall(request.encode())
        head, body = Stream(connection).message()
        return head.decode(), body.decode()


verdict = Verdict()
upstream = Upstream(serve)
outbound = upstream.dsn().replace(OUT_KEY, f"{OUT_KEY}:{OUT_SECRET}")
with Mirror({KEY: [outbound]}) as mirror:
    honest = Honest(mirror)
    end = time.monotonic() + SECONDS
    told, runs = [], 0
    for shape in ["sentry", "twice", "comment", "escaped", "error", "json", "page"]:
        for method, tail in [("GET", ""), ("GET", "&x=" + "A" * 8200), ("GET", "&x=" + "'" * 1370), ("POST", "")]:
            if method == "POST" and shape in ("sentry", "twice", "comment", "escaped"):
                continue
            head, body = ask(mirror, method, QUERY + tail)
            plain = re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), head + body)
            runs += 1
            if any(word in plain for word in (OUT_KEY, OUT_SECRET, f"127.0.0.1:{upstream.port}")):
                told.append(f"{method} {shape} {len(tail)}")
    shape, sent = "sentry", len(heads)
    fields = (
        f"X-Sentry-Auth: Sentry sentry_key={KEY}, sentry_secret={IN_SECRET}\r\n"
        f"Authorization: Basic {PAGES}\r\nCookie: session={IN_SECRET}\r\nRange: bytes=0-1\r\nIf-None-Match: *\r\n"
        f"Referer: https://page.example/?{KEY}\r\n"
    )
    sites = f"&sentry_key={KEY}&sentry_secret={IN_SECRET}&sentr%79_secret={IN_SECRET}"
    for method in ("GET", "POST"):
        ask(mirror, method, QUERY + sites, fields)
    while time.monotonic() < end:
        ask(mirror, "GET", QUERY + "&x=" + "'" * 1300)
    words = (KEY, IN_SECRET, PAGES, "Range:", "If-None-Match:")
    left = [word for word in words if any(word in head for head in heads[sent : sent + 2])]
    verdict.line(
        f"dialog: {len(told)} of {runs} answers tell of the outbound {told}; left with requests: {left}",
        honest.stop(),
        mirror,
        nothing_told=not told,
        nothing_left=not left,
        all_sent=len(heads) >= sent + 2,
    )
verdict.end()
