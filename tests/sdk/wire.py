"""HTTP/1.1 messages exactly as they were on the wire.

Library parsers fold, lower-case or reorder header lines, which is just what this suite must not
overlook. So a message here keeps every header line as its text, and the body as the bytes that
were sent with only the chunk framing taken off. Nothing is tolerated: the SDKs and the mirror are
both expected to write clean HTTP, and anything else is a finding.
"""

import gzip
import json
import re
import zlib
from dataclasses import dataclass

# Of the crash-report dialog, the one resource of Sentry's web part that is addressed by a DSN.
DIALOG_PATH = "/api/embed/error-page/"


class Malformed(Exception):
    """The bytes are not the HTTP message, or not the envelope, that they should be."""


@dataclass(frozen=True)
class Message:
    """A request or a reply."""

    start_line: str
    lines: tuple[str, ...]
    framing: str  # "length", "chunked" or "none"
    sent_body: bytes

    def values(self, name: str) -> list[str]:
        """The values of all header lines with this name, in order."""
        return [value.strip() for n, _, value in map(_partition, self.lines) if n.lower() == name]

    def value(self, name: str) -> str:
        """The value of a header that may occur once; empty if it does not occur."""
        values = self.values(name)
        if len(values) > 1:
            raise Malformed(f"{name} occurs {len(values)} times")
        return values[0] if values else ""

    @property
    def method(self) -> str:
        return self.start_line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.start_line.split(" ")[1]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def asks_for_dialog(self) -> bool:
        """Whether this request, which may be below a prefix, wants the dialog's script."""
        return self.method == "GET" and self.path.endswith(DIALOG_PATH)

    @property
    def status(self) -> str:
        return self.start_line.split(" ")[1]

    @property
    def content_type(self) -> str:
        """Its media type, without parameters."""
        return self.value("content-type").partition(";")[0]

    @property
    def keeps_alive(self) -> bool:
        """Whether the sender of this request counts on using its connection again."""
        return self.start_line.endswith("HTTP/1.1") and "close" not in self.value("connection")

    @property
    def encoding(self) -> str:
        return self.value("content-encoding") or "identity"

    def plain_body(self) -> bytes:
        """The body without its Content-Encoding."""
        try:
            match self.encoding:
                case "identity":
                    return self.sent_body
                case "gzip":
                    return gzip.decompress(self.sent_body)
                case "deflate":
                    return zlib.decompress(self.sent_body)
                case "br":
                    import brotli  # Only there where an SDK is to send it.

                    return brotli.decompress(self.sent_body)
        except Exception as error:
            raise Malformed(f"body is not {self.encoding}: {error}") from error
        raise Malformed(f"unknown Content-Encoding {self.encoding!r}")


def take(buffer: bytearray, answers: str = "", ended: bool = False) -> Message | None:
    """Cut the first complete message off `buffer`; None if its end has not arrived yet.

    `answers` is the method of the request if the message is the reply to it. `ended` says that no
    more bytes will follow, which ends the body of a reply that has no length.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    start_line, *lines = bytes(buffer[:end]).decode("latin-1").split("\r\n")
    is_reply = start_line.startswith("HTTP/")
    form = r"HTTP/1\.[01] \d{3} .*" if is_reply else r"[A-Z]+ \S+ HTTP/1\.[01]"
    if not re.fullmatch(form, start_line):
        raise Malformed(f"start line {start_line!r}")
    for line in lines:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*", line):
            raise Malformed(f"header line {line!r}")

    head = Message(start_line, tuple(lines), "none", b"")
    length, coding = head.value("content-length"), head.value("transfer-encoding")
    rest = buffer[end + 4 :]
    if is_reply and (answers == "HEAD" or re.fullmatch(r"1..|204|304", head.status)):
        framing, body, used = "none", b"", 0
    elif length and coding:
        raise Malformed("both Content-Length and Transfer-Encoding")
    elif coding:
        if coding.lower() != "chunked":
            raise Malformed(f"Transfer-Encoding {coding!r}")
        chunks = _chunks(rest)
        if chunks is None:
            return None
        framing, (body, used) = "chunked", chunks
    elif length:
        if not length.isascii() or not length.isdigit():
            raise Malformed(f"Content-Length {length!r}")
        framing, used = "length", int(length)
        if len(rest) < used:
            return None
        body = bytes(rest[:used])
    elif is_reply:
        if not ended:
            return None
        framing, body, used = "none", bytes(rest), len(rest)
    else:
        framing, body, used = "none", b"", 0
    del buffer[: end + 4 + used]
    return Message(start_line, tuple(lines), framing, body)


def items(body: bytes) -> list[str]:
    """The item types of an envelope, in order."""
    return [header["type"] for header in item_headers(body)]


def item_headers(body: bytes) -> list[dict]:
    """The item headers of an envelope, in order (develop docs: "Envelopes", "Items")."""
    _, _, rest = body.partition(b"\n")
    headers = []
    while rest.strip(b"\n"):
        line, _, rest = rest.partition(b"\n")
        try:
            header = json.loads(line)
            header["type"]
            headers.append(header)
        except (ValueError, KeyError, TypeError) as error:
            raise Malformed(f"item header {line[:80]!r}: {error}") from error
        if "length" in header:
            payload, rest = rest[: header["length"]], rest[header["length"] :]
            if len(payload) < header["length"] or rest[:1] not in (b"", b"\n"):
                raise Malformed(f"item {header['type']} is not {header['length']} bytes long")
            rest = rest[1:]
        else:
            _, _, rest = rest.partition(b"\n")
    return headers


def _partition(line: str) -> tuple[str, str, str]:
    return line.partition(":")


def _chunks(rest: bytearray) -> tuple[bytes, int] | None:
    """The joined chunks and how many bytes they took; None if the last chunk is not there yet."""
    body, at = bytearray(), 0
    while True:
        end = rest.find(b"\r\n", at)
        if end < 0:
            return None
        size = bytes(rest[at:end])
        if not re.fullmatch(rb"[0-9A-Fa-f]+", size):
            raise Malformed(f"chunk size {size[:40]!r}")
        at, length = end + 2, int(size, 16)
        if len(rest) < at + length + 2:
            return None
        if rest[at + length : at + length + 2] != b"\r\n":
            raise Malformed("chunk does not end with CRLF (trailers are not expected either)")
        body += rest[at : at + length]
        at += length + 2
        if length == 0:
            return bytes(body), at
