"""What an application with the Python SDK sends: `python.py ENCODING`, DSN in SENTRY_DSN.

Each step says what it is about to send (see README.md) and flushes, so that one step is one
envelope. ENCODING is the Content-Encoding that the installed packages must lead to.
"""

import json
import os
import sys
import time
import uuid

import sentry_sdk
from sentry_sdk.crons import capture_checkin
from sentry_sdk.envelope import Envelope, Item, PayloadRef
from sentry_sdk.session import Session

# Text that looks like a key site where there is none: it must pass unchanged.
KEY = os.environ["SENTRY_DSN"].split("//")[1].split("@")[0].split(":")[0]
LOOK_ALIKE = b'\n{"dsn":"%s"}\r\n\n"public_key":"%s"\x00\xff' % (
    os.environ["SENTRY_DSN"].encode(),
    KEY.encode(),
)


def step(name: str, items: str) -> None:
    """Flush what is there and announce what comes next."""
    sentry_sdk.flush(10)
    print(json.dumps([name, items, sys.argv[1], "length"]), flush=True)


def burn(seconds: float) -> None:
    """Give the profiler's sampling thread something to see."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))


sentry_sdk.init(
    release="app@1.2.3",
    environment="prod",
    traces_sample_rate=1.0,
    profiles_sample_rate=1.0,
    enable_logs=True,
    auto_session_tracking=False,
    before_send=lambda event, _: None if event.get("message") == "dropped" else event,
)

step("error", "event")
try:
    1 / 0
except ZeroDivisionError:
    sentry_sdk.set_tag("look-alike", KEY)
    sentry_sdk.capture_exception()

step("large error", "event")
with sentry_sdk.new_scope() as scope:
    for number in range(60):
        scope.add_breadcrumb(message=f"{number} — größer, 更大 " * 60)
    sentry_sdk.capture_message("large")

step("attachment", "event+attachment+attachment")
with sentry_sdk.new_scope() as scope:
    scope.add_attachment(bytes=LOOK_ALIKE, filename="look-alike.bin")
    scope.add_attachment(bytes=os.urandom(300_000), filename="random.bin")
    sentry_sdk.capture_message("with attachments")

step("transaction, profile", "profile+transaction")
with sentry_sdk.start_transaction(op="test", name=f"checkout {KEY}"):
    with sentry_sdk.start_span(op="db", name="select 1"):
        burn(0.2)

step("session", "session")
scope = sentry_sdk.get_isolation_scope()
scope.start_session()
scope.end_session()

step("session aggregates", "sessions")
client = sentry_sdk.get_client()
for status in ("exited", "errored"):
    client.capture_session(
        Session(release="app@1.2.3", environment="prod", session_mode="request", status=status)
    )

step("logs", "log")
sentry_sdk.logger.info("one {thing}", thing="ü")
sentry_sdk.logger.error("two")

step("metrics", "trace_metric")
sentry_sdk.metrics.count("orders", 1)
sentry_sdk.metrics.distribution("latency", 12.5, unit="millisecond")

step("check-in", "check_in")
crontab = {"schedule": {"type": "crontab", "value": "0 * * * *"}}
capture_checkin(monitor_slug="nightly", status="in_progress", monitor_config=crontab)

# There is no function for feedback; the envelope is the documented way.
step("feedback", "feedback")
feedback = {"message": "It is good.", "name": "Ada", "contact_email": "ada@example.com"}
event_id = uuid.uuid4().hex
event = {"event_id": event_id, "type": "feedback", "contexts": {"feedback": feedback}}
item = Item(payload=PayloadRef(json=event), type="feedback")
client.transport.capture_envelope(Envelope(headers={"event_id": event_id}, items=[item]))

step("client report", "client_report")
sentry_sdk.capture_message("dropped")

sentry_sdk.flush(10)
