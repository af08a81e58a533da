"""What must reach an outbound, worked out from a recorded request by plain text replacement.

This is the specification of the rewriting a second time, written without a look at the Rust code
and with other means: regular expressions over decoded text instead of spans. It knows the places
where an SDK writes its DSN or key, and says that not one other byte may differ.
"""

import base64
import json
import re
from dataclasses import dataclass, replace

from wire import DIALOG_PATH, Malformed, Message

# The mirror speaks for itself on its own connection, decodes the body and sends it with its length
# (RFC 9110 section 7.6.1; the rest is the mirror's own contract).
DROPPED = re.compile(
    r"(Content-Length|Content-Encoding|Host|X-Forwarded-For|Accept-Encoding|Transfer-Encoding"
    r"|Connection|Keep-Alive|TE|Trailer|Upgrade|Expect|Proxy-[^:]*"
    r"|CF-Connecting-IP|Forwarded|True-Client-IP|X-Real-IP|X-(Sentry|Vercel)-Forwarded-For"
    r"|CF-Connecting-IPv6|CF-Pseudo-IPv4|CloudFront-Viewer-Address|Fastly-Client-IP|X-Nf-Client-Connection-Ip"
    r"|(DO-Connecting|Fly-Client|X-Appengine-User)-IP|X-Azure-(Client|Socket)IP|X-Envoy-External-Address"
    r"|X-Original-Forwarded-For|X-(Cluster-)?Client-IP|X-ProxyUser-Ip|X-Forwarded|Forwarded-For):",
    re.IGNORECASE,
)

# What the mirror does not offer: it answers 404.
NOT_OFFERED = re.compile(r"\S+ /api/\d+/upload/")


@dataclass(frozen=True)
class Dsn:
    """A DSN in its parts; `str()` puts it together again."""

    key: str
    authority: str
    project: str
    secret: str = ""
    prefix: str = ""
    scheme: str = "http"

    def __str__(self) -> str:
        user = f"{self.key}:{self.secret}" if self.secret else self.key
        return f"{self.scheme}://{user}@{self.authority}{self.prefix}/{self.project}"


@dataclass(frozen=True)
class Outgoing:
    """The part of an outbound request that is fixed byte for byte."""

    start_line: str
    lines: tuple[str, ...]
    host: str
    body: bytes

    @property
    def is_envelope(self) -> bool:
        return bool(re.search("/envelope/[? ]", self.start_line))

    def key_sites(self, dsn: Dsn) -> list[str]:
        """Where this request, made for `dsn`, bears its key.

        This reads the result with a JSON parser, so that a key site which the replacement does
        not know, and therefore leaves alone, cannot pass as a part of the payload.
        """
        sites = []
        path, _, query = self.start_line.partition("?")
        if dsn.key in path:
            sites.append("path")
        if dsn.key in query:
            sites.append("query")
        if any(dsn.key in line for line in self.lines):
            sites.append("header")
        if any(dsn.key in (_basic_credentials(line) or "") for line in self.lines):
            sites.append("basic")
        if self.is_envelope:
            header = json.loads(self.body.partition(b"\n")[0])
            for site, value, own in (
                ("dsn", header.get("dsn"), str(dsn)),
                ("trace", header.get("trace", {}).get("public_key"), dsn.key),
            ):
                if value not in (None, own):
                    raise Malformed(f"the suite cannot rewrite this {site}: {value!r}")
                if value:
                    sites.append(site)
        return sites


def receivers(request: Message, outbounds: list[Dsn]) -> list[Dsn]:
    """The outbounds that must get this request; if there is none, the mirror answers by itself."""
    if request.method == "OPTIONS" or NOT_OFFERED.match(request.start_line):
        return []
    if request.asks_for_dialog:
        return outbounds[:1]  # One page can show one dialog.
    return outbounds


def outgoing(request: Message, inbound: Dsn, outbound: Dsn) -> Outgoing:
    """What `outbound` must receive for `request`, which was sent to `inbound`."""
    method, target, version = request.start_line.split(" ")
    path, mark, query = target.partition("?")
    path = _path(path, inbound, outbound)
    body = request.plain_body()
    if path.endswith("/envelope/"):
        body = _envelope(body, inbound, outbound)
    lines = [_line(line, inbound, outbound) for line in request.lines if not DROPPED.match(line)]
    result = Outgoing(
        f"{method} {outbound.prefix}{path}{mark}{_auth(query, inbound, outbound)} HTTP/1.1",
        (*lines, f"Via: {version.removeprefix('HTTP/')} sentry-mirror-{_tag(inbound.key)}"),
        outbound.authority,
        body,
    )
    head = "\n".join((result.start_line, *result.lines))
    for ours in filter(None, (inbound.key, inbound.secret)):
        if ours in head:
            raise Malformed(f"a key in a place unknown to the suite: {result}")
    return result


def difference(actual: Message, wanted: Outgoing) -> str:
    """The first way in which a delivery is not what it must be; empty if there is none."""
    lines = tuple(x for x in actual.lines if not re.match("(host|content-length):", x, re.I))
    length = str(len(wanted.body)) if actual.framing != "none" or wanted.body else ""
    for what, got, want in (
        ("request line", actual.start_line, wanted.start_line),
        ("header lines", "\n".join(lines), "\n".join(wanted.lines)),
        ("Host", actual.value("host"), wanted.host),
        ("Content-Length", actual.value("content-length"), length),
        ("body", actual.sent_body, wanted.body),
    ):
        if got != want:
            return f"{what}: {_first_difference(got, want)}"
    return ""


def _tag(key: str) -> str:
    """What names the route of an inbound key in Via: the upper half of FNV-1a, mixed by MurmurHash3."""
    mask = (1 << 64) - 1
    number = 0xCBF29CE484222325
    for byte in key.encode():
        number = (number ^ byte) * 0x100000001B3 & mask
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        number = (number ^ number >> 33) * factor & mask
    return f"{(number ^ number >> 33) >> 32:08x}"


def _path(path: str, inbound: Dsn, outbound: Dsn) -> str:
    """The path below the outbound's prefix; a tunnel may have any path."""
    if path == DIALOG_PATH:
        return path
    own = f"/api/{inbound.project}/"
    if not path.startswith(own):
        return f"/api/{outbound.project}/envelope/"
    endpoint = path.removeprefix(own)
    if re.match("(unreal|cron)/", endpoint):
        endpoint = re.sub(f"/{inbound.key}(/?)$", rf"/{outbound.key}\1", endpoint)
    return f"/api/{outbound.project}/{endpoint}"


def _line(line: str, inbound: Dsn, outbound: Dsn) -> str:
    if not re.match("(x-sentry-auth|authorization):", line, re.IGNORECASE):
        # The baggage of a trace names the key, for instance.
        return line.replace(inbound.key, outbound.key)
    credentials = _basic_credentials(line)
    if credentials is None:
        return _auth(line, inbound, outbound)
    user, _, password = credentials.partition(":")
    if (user, password) not in ((inbound.key, ""), (inbound.key, inbound.secret)):
        raise Malformed(f"the suite cannot rewrite these credentials: {credentials}")
    ours = f"{outbound.key}:{outbound.secret if password else ''}"
    scheme = line[: line.index(" ", line.index(":") + 2) + 1]
    return scheme + base64.b64encode(ours.encode()).decode()


def _basic_credentials(line: str) -> str | None:
    """What an `Authorization: Basic` line says, if it is one."""
    found = re.fullmatch(r"authorization: basic (\S+)", line, re.IGNORECASE)
    return base64.b64decode(found[1], validate=True).decode() if found else None


def _auth(text: str, inbound: Dsn, outbound: Dsn) -> str:
    """A query or an auth header with the key replaced, and the secret replaced or removed.

    The `dsn` of the crash-report dialog goes out without a secret.
    """
    text = text.replace(f"dsn={inbound}", f"dsn={replace(outbound, secret='')}")
    text = text.replace(f"sentry_key={inbound.key}", f"sentry_key={outbound.key}")
    secret = f"sentry_secret={inbound.secret}"
    if not inbound.secret or secret not in text:
        return text
    if outbound.secret:
        return text.replace(secret, f"sentry_secret={outbound.secret}")
    return re.sub(rf"[,&]\s*{secret}|(?<=\?){secret}&?", "", text)


def _envelope(body: bytes, inbound: Dsn, outbound: Dsn) -> bytes:
    """The body with the two string values of the envelope header replaced.

    Only as values of these names: a release or a transaction name may contain the key, too. Some
    SDKs escape the slashes of the DSN, leave its secret out, or write an empty one.
    """
    header, newline, rest = body.partition(b"\n")
    text = header.decode()
    public = str(replace(inbound, secret=""))
    for dsn in (str(inbound), public, public.replace("@", ":@")):
        for written in (dsn, dsn.replace("/", r"\/")):
            text = text.replace(f'"dsn":"{written}"', f'"dsn":"{outbound}"')
    text = text.replace(f'"public_key":"{inbound.key}"', f'"public_key":"{outbound.key}"')
    return text.encode() + newline + rest


def _first_difference(got: str | bytes, want: str | bytes) -> str:
    pairs = enumerate(zip(got, want))
    at = next((i for i, (a, b) in pairs if a != b), min(len(got), len(want)))
    near = slice(max(0, at - 30), at + 50)
    return f"at byte {at} of {len(want)}: got {got[near]!r}, want {want[near]!r}"
