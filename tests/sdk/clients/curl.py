"""What reaches Sentry without an SDK, and what other SDKs do over libcurl: DSN in SENTRY_DSN.

Crash handlers, browsers' reports, log drains, cron jobs, and SDKs from before envelopes. Each step
says what it is about to send (see README.md) and runs one curl. curl gets bodies on its standard
input, so nothing is read or rewritten between the bytes here and the wire.
"""

import base64
import gzip
import json
import os
import subprocess
import tempfile
import zlib
from pathlib import Path
from urllib.parse import quote, urlsplit

DSN = os.environ["SENTRY_DSN"]
PARTS = urlsplit(DSN)
KEY, SECRET, PROJECT = PARTS.username, PARTS.password, PARTS.path.strip("/")
API = f"http://{PARTS.hostname}:{PARTS.port}/api"
QUERY = f"?sentry_key={KEY}"
EVENT_ID = "fc6d8c0c43fc4630ad850ee518f1b9d0"
# Text that looks like a key site where there is none: it must pass unchanged.
LOOK_ALIKE = {"dsn": DSN, "trace": {"public_key": KEY}, "sentry_key": KEY}
EVENT = json.dumps(LOOK_ALIKE | {"event_id": EVENT_ID, "message": "größer"}).encode()
MINIDUMP = b"MDMP\x93\xa7\0\0" + json.dumps(LOOK_ALIKE).encode() + b"\r\n\n\0" + os.urandom(100_000)


def x_sentry_auth(*more: str) -> tuple[str, str]:
    """The header that SDKs send; `more` are parameters behind the key."""
    values = ("sentry_version=7", "sentry_client=curl/7.88", f"sentry_key={KEY}", *more)
    return ("-H", f"X-Sentry-Auth: Sentry {', '.join(values)}")


def send(
    name: str,
    path: str,
    *arguments: str,
    kind: str = "",
    body: bytes | None = None,
    encoding: str = "identity",
    framing: str = "",
    parameters: str = "",
) -> str:
    """Announce one request and send it; the heads of what comes back.

    `kind` is the Content-Type of the body without its `parameters`, or what else the suite knows
    the request by.
    """
    framing = framing or ("none" if body is None else "length")
    print(json.dumps([name, kind, encoding, framing]), flush=True)
    command = ["curl", "-q", "-sS", "--noproxy", "*", "--max-time", "20", *arguments]
    if "/" in kind and body is not None:
        command += ["-H", f"Content-Type: {kind}{parameters}"]
    if encoding != "identity":
        command += ["-H", f"Content-Encoding: {encoding}"]
    if framing == "chunked":
        command += ["-H", "Transfer-Encoding: chunked"]
    if body is not None:
        command += ["--data-binary", "@-"]
    command += ["--dump-header", "-", "-o", os.devnull, f"{API}/{path}"]
    done = subprocess.run(command, input=body or b"", stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def upload(name: str, path: str, *fields: str) -> None:
    """A form with files, put together by curl."""
    arguments = [argument for field in fields for argument in ("-F", field)]
    send(name, path, *arguments, kind="multipart/form-data", framing="length")


def field(number: int, value: bytes) -> bytes:
    """A field of a protobuf message, of less than 128 bytes."""
    assert len(value) < 128
    return bytes((number << 3 | 2, len(value))) + value


def crashes(folder: Path) -> None:
    dump = folder / "crash.dmp"
    dump.write_bytes(MINIDUMP)
    upload(
        "minidump",
        f"{PROJECT}/minidump/{QUERY}",
        f"upload_file_minidump=@{dump};type=application/octet-stream",
        'sentry={"release":"app@1.2.3"}',
    )
    upload(
        "playstation",
        f"{PROJECT}/playstation/{QUERY}",
        f"upload_file_minidump=@{dump};filename=crash.prosperodmp",
    )
    upload(
        "event attachment", f"{PROJECT}/events/{EVENT_ID}/attachments/{QUERY}", f"file=@{dump}"
    )

    boundary = "---MultipartBoundary-DgK5Tz---"
    disposition = "Content-Disposition: form-data; name="
    form = (
        f'--{boundary}\r\n{disposition}"sentry"\r\n\r\n{{"release":"app@1.2.3"}}\r\n'
        f'--{boundary}\r\n{disposition}"upload_file_minidump"; filename="0.dmp"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    send(
        "minidump of Crashpad",
        f"{PROJECT}/minidump/?sentry_client=sentry.native/0.16.3&sentry_key={KEY}&product=app",
        "--compressed",
        kind="multipart/form-data",
        parameters=f"; boundary={boundary}",
        body=gzip.compress(form.encode() + MINIDUMP + f"\r\n--{boundary}--\r\n".encode()),
        encoding="gzip",
        framing="chunked",
    )
    send(
        "unreal",
        f"{PROJECT}/unreal/{KEY}/?AppID=CrashReporter&AppVersion=5.6&UserID={EVENT_ID}",
        kind="application/octet-stream",
        body=zlib.compress(MINIDUMP),
    )


def reports() -> None:
    csp = {"csp-report": {"document-uri": "https://app.example.com/", "original-policy": KEY}}
    send(
        "CSP report",
        f"{PROJECT}/security/{QUERY}&sentry_release=app%401.2.3&sentry_environment=prod",
        kind="application/csp-report",
        body=json.dumps(csp).encode(),
    )
    report = [{"type": "csp-violation", "age": 10, "url": DSN, "body": LOOK_ALIKE}]
    send(
        "CSP, Reporting API",
        f"{PROJECT}/csp-report/{QUERY}",
        "-H",
        "Origin: https://app.example.com",
        kind="application/reports+json",
        body=json.dumps(report).encode(),
    )
    report = [{"type": "network-error", "age": 10, "url": DSN, "body": {"phase": "dns"}}]
    send(
        "NEL",
        f"{PROJECT}/nel/{QUERY}",
        kind="application/reports+json",
        body=json.dumps(report).encode(),
    )


def telemetry() -> None:
    otlp = f"{PROJECT}/integration/otlp/v1"
    auth = ("-H", f"x-sentry-auth: sentry sentry_key={KEY}")
    span = {"name": f"checkout {KEY}", "traceId": EVENT_ID, "spanId": EVENT_ID[:16]}
    spans = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    record = {"severityText": "INFO", "body": {"stringValue": "größer"}}
    records = {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}
    # ExportTraceServiceRequest: resource_spans, scope_spans, spans, name.
    span_bytes = field(1, field(2, field(2, field(5, f"checkout {KEY}".encode()))))
    # ExportLogsServiceRequest: resource_logs, scope_logs, log_records, body, string_value.
    record_bytes = field(1, field(2, field(2, field(5, field(1, "größer".encode())))))
    for name, path, as_json, as_protobuf in (
        ("OTLP traces", f"{otlp}/traces", spans, span_bytes),
        ("OTLP logs", f"{otlp}/logs/", records, record_bytes),
    ):
        body = json.dumps(as_json).encode()
        send(f"{name}, JSON", path, *auth, kind="application/json", body=body)
        body = gzip.compress(as_protobuf)
        kind = "application/x-protobuf"
        send(f"{name}, binary", path, *auth, kind=kind, body=body, encoding="gzip")
    lines = [{"id": str(n), "source": "lambda", "message": f"größer {DSN}"} for n in range(3)]
    send(
        "Vercel logs",
        f"{PROJECT}/integration/vercel/logs{QUERY}",
        kind="application/x-ndjson",
        body="\n".join(map(json.dumps, lines)).encode(),
    )


def check_ins() -> None:
    cron = f"{PROJECT}/cron/nightly-job"
    schedule = {"schedule": {"type": "crontab", "value": "0 * * * *"}}
    send("cron, GET", f"{cron}/{KEY}/?status=in_progress&environment=prod", kind="GET")
    send("cron, HEAD", f"{cron}/{KEY}?status=ok", "--head", kind="HEAD")
    send(
        "cron, POST",
        f"{cron}/{KEY}/",
        kind="application/json",
        body=json.dumps({"status": "ok", "monitor_config": schedule}).encode(),
    )
    send("cron, GET, Basic", f"{cron}/?status=ok", "-u", f"{KEY}:", kind="GET")
    basic = ("-u", f"{KEY}:{SECRET}")
    send("cron, POST, Basic", f"{cron}?status=ok", "-X", "POST", *basic, kind="POST")


def stores() -> None:
    store = f"{PROJECT}/store/"
    auth = x_sentry_auth(f"sentry_secret={SECRET}", "sentry_timestamp=1795448476")
    send("store, JSON", store, *auth, kind="application/json", body=EVENT)
    body = base64.b64encode(zlib.compress(EVENT))
    send("store, base64", store, *auth, kind="application/octet-stream", body=body)
    data = quote('{"message":"größer"}')
    query = f"?sentry_version=7&sentry_client=raven-js%2F3.27&sentry_key={KEY}&sentry_data={data}"
    send("store, GET", store + query, kind="GET")


def envelopes() -> None:
    header = f'{{"event_id":"{EVENT_ID}","trace":{{"public_key":"{KEY}","sample_rate":1}}}}\n'
    event = b'{"type":"event","length":%d}\n%b\n' % (len(EVENT), EVENT)
    send(
        "HTTP/1.0",
        f"{PROJECT}/envelope/{QUERY}",
        "--http1.0",
        "-H",
        "Content-Type: application/x-sentry-envelope",
        kind="event",
        body=header.encode() + event,
    )
    # As PHP writes it: slashes escaped, no secret, and libcurl asks before it sends a large body.
    dsn = DSN.replace(f":{SECRET}@", "@").replace("/", r"\/")
    header = f'{{"sent_at":"2026-11-23T15:32:05Z","dsn":"{dsn}",{header[1:]}'
    noise = os.urandom(2 << 20)
    attachment = b'{"type":"attachment","length":%d,"filename":"a.bin"}\n%b' % (len(noise), noise)
    heads = send(
        "Expect, like PHP",
        f"{PROJECT}/envelope/",
        *x_sentry_auth(),
        "-H",
        "Content-Type: application/x-sentry-envelope",
        "--expect100-timeout",
        "30",
        kind="event+attachment",
        body=gzip.compress(header.encode() + event + attachment),
        encoding="gzip",
    )
    assert heads.startswith("HTTP/1.1 100 Continue\r\n"), heads


def others() -> None:
    kind = "application/x-brand-new"
    body = b"\0" + EVENT
    send("brand-new endpoint", f"{PROJECT}/brand-new/thing/{QUERY}&a=%20b", kind=kind, body=body)
    tus = ("Tus-Resumable: 1.0.0", "Upload-Length: 104857600", "Upload-Metadata: sentry e30=")
    headers = [argument for line in tus for argument in ("-H", line)]
    path = f"{PROJECT}/upload/"
    send("upload", path, "-X", "POST", *x_sentry_auth(), *headers, kind="POST")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        crashes(Path(folder))
    reports()
    telemetry()
    check_ins()
    stores()
    envelopes()
    others()
