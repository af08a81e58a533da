"""The inbound key and secret in spellings that nobody was meant to use: none of them may reach an outbound.

What arrives at the outbound is percent-decoded twice, and what looks like base64 is decoded, before the key is
looked for. Dot segments are written in every way; none may leave.
"""

import base64
import re
import time
import urllib.parse

from lib import KEY, Honest, Mirror, Stream, Upstream, Verdict, post

SECONDS = 4
SECRET = "5ec4e7" * 5
heads: list[str] = []


def serve(connection) -> None:
    stream = Stream(connection)
    while True:
        heads.append(stream.message()[0].decode("latin-1"))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


def coded(text: str, times: int = 1, which: str = "") -> str:
    """`text` percent-encoded so many times, all of it or the characters in `which`."""
    for time in range(times):
        text = "".join(
            f"%{ord(character):02x}" if not which or character in (which if not time else "%") else character
            for character in text
        )
    return text


def spellings(text: str) -> list[str]:
    return [text, coded(text), coded(text, 2), coded(text, 1, text[0]), coded(text, 2, text[1]), coded(text, 2, "e")]


def words_in(head: str) -> set[str]:
    """The secrets that somebody could read in a head."""
    texts = [head, urllib.parse.unquote(head), urllib.parse.unquote(urllib.parse.unquote(head))]
    for word in re.findall(r"[A-Za-z0-9+/_-]{20,}", head):
        word = word.replace("-", "+").replace("_", "/")
        texts.append(base64.b64decode(word + "=" * (-len(word) % 4)).decode("latin-1") if len(word) % 4 != 1 else "")
    return {name for name, secret in (("key", KEY), ("secret", SECRET)) if any(secret in text for text in texts)}


def requests() -> list[tuple[str, str]]:
    """Targets and header lines."""
    auth = f"X-Sentry-Auth: Sentry sentry_key={KEY}"
    query = f"/api/1/store/?sentry_key={KEY}"
    found = []
    for key in spellings(KEY):
        for path in ("unreal/{}/x", "%75nreal/{}/", "cron/a/{}/b/", "x/{}", "x%2f{}", "store/;k={}"):
            found.append((f"/api/1/{path.format(key)}", auth))
        for name in ("sentr%79_key", "sentr%2579_key", "%53entry_key", "key", "a=b&x", "dsn=https://m/%3f"):
            found.append((f"/api/1/store/?{name}={key}", auth))
        for line in ("Authorization: Bearer {}", "Referer: https://m/?{}", "baggage: sentry-public_key={}"):
            found.append((query, line.format(key)))
            found.append(("/api/1/store/", f"{auth}\r\n{line.format(key)}"))
        found.append((f"{query}&x={key}&y={key}", "A: b"))
    for secret in spellings(SECRET):
        for name in ("sentr%79_secret", "sentry_secre%74", "sentr%2579_secret", "Sentry_Secret", "+sentry_secret"):
            found.append((f"/api/1/store/?{name}={secret}", auth))
            found.append((f"{query}&{name}={secret}&a=b", "A: b"))
        found.append((f"/api/1/store/?dsn=https://{KEY}:{secret}@m/1", auth))
        found.append((f"{query};sentry_secret={secret}", "A: b"))
        for line in ("sentry_client=a;sentry_secret={}", "sentry_secre%74={}", "sentry_secret={}", "x sentry_secret={}"):
            found.append(("/api/1/store/", f"{auth}, {line.format(secret)}"))
            found.append(("/api/1/store/", f"{auth}\r\nX-Sentry-Auth: Sentry {line.format(secret)}"))
            found.append(("/api/1/store/", f"{auth}\r\nX-Sentry-Auth: Sentry\t{line.format(secret)}"))
            found.append(("/api/1/store/", f"{auth}\r\nAuthorization: Sentry,{line.format(secret)}"))
    credentials = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
    for line in (f"Basic {credentials}", f"Basic  {credentials}", f"Bearer {credentials.strip('=')}", f"Basic\t{credentials}"):
        found.append(("/api/1/store/", f"Authorization: {line}"))
        found.append((query, f"Authorization: {line}"))
    return found


DOTS = ("..%2f..%2f", "..%5c", "%2e%2e%2F", "x%2f%2e%2e/", "..%252f", "%252e%252e/", "..;a/", "..\\", "./", "%2E/")

verdict = Verdict()
upstream = Upstream(serve)
with Mirror({KEY: [upstream.dsn()]}) as mirror:
    honest = Honest(mirror)
    cases = requests()
    end = time.monotonic() + SECONDS
    for target, fields in cases:
        with mirror.connect() as connection:
            connection.sendall(f"POST {target} HTTP/1.1\r\nHost: m\r\nX-Case: 1\r\n{fields}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            Stream(connection).message()
    sent = [head for head in heads if "X-Case" in head]
    leaks = [(head, words) for head in sent if (words := words_in(head))]
    for head, words in leaks[:3]:
        print(f"  {words} in {head!r}")
    for dots in DOTS:
        with mirror.connect() as connection:
            target = f"/api/1/store/{dots}secret/?sentry_key={KEY}"
            connection.sendall(f"POST {target} HTTP/1.1\r\nHost: m\r\nX-Dots: 1\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            Stream(connection).message()
    while time.monotonic() < end:
        with mirror.connect() as connection:
            # Nearly the key, again and again.
            connection.sendall(post(b"{}", path="/api/1/store/?" + (KEY[:-1] + "%") * 1500))
            Stream(connection).message()
    dotted = sum("X-Dots" in head for head in heads)
    verdict.line(
        f"keys: {len(leaks)} of {len(sent)} requests sent ({len(cases)} made) leak; {dotted} of {len(DOTS)} dot segments sent",
        honest.stop(),
        mirror,
        no_leak=not leaks,
        most_sent=len(sent) > len(cases) / 2,
        no_dots=dotted == 0,
    )
verdict.end()
