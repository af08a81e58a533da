"""The items of a request by data category, worked out a second time from what a sink has received.

Relay 26.9 counts items so (`Item::quantities`, `DataCategory`), and so does the mirror in
`sentry_mirror_items_total`. This was written without a look at the Rust code, from docs/metrics.md.
"""

import re
from collections import Counter
from urllib.request import urlopen

from wire import Message, item_headers

TYPES = {
    "attachment": "attachment",
    "check_in": "monitor",
    "client_report": "client_report",
    "event": "error",
    "feedback": "feedback",
    "log": "log_item",
    "profile": "profile",
    "replay_event": "replay",
    "replay_recording": "replay",
    "session": "session",
    "sessions": "session",
    "span": "span",
    "trace_metric": "trace_metric",
    "transaction": "transaction",
    "user_report": "feedback",
}
# One item has as many entries as its header says.
CONTAINERS = ("log", "span", "trace_metric")
# Sentry makes an event of a crash report that comes without one.
CRASH_REPORTS = ("event.minidump", "event.applecrashreport")
EVENTS = ("event", "transaction", "feedback")
# Their chunks of profiles come from users, all others from servers.
USER_PLATFORMS = ("android", "cocoa", "javascript")

# By method and path, for what is no envelope: one item.
ENDPOINTS = (
    (r"POST /api/(\d+/)?store/|GET /api/(\d+/)?store/", "error"),
    (r"POST /api/\d+/(minidump|unreal|playstation)/", "error"),
    (r"POST /api/\d+/(security|csp-report)/", "security"),
    (r"POST /api/\d+/nel/", "log_item"),
    (r"POST /api/\d+/events/[^/]+/attachments/", "attachment"),
    (r"(GET|POST) /api/\d+/cron/", "monitor"),
    (r"POST /api/\d+/integration/otlp/v1/traces", "span"),
    (r"POST /api/\d+/integration/(otlp/v1/logs|vercel/logs)", "log_item"),
    (r"POST /api/embed/error-page/", "feedback"),
)


def counted(request: Message, prefix: str) -> Counter[str]:
    """The items of a request to an outbound with this path prefix, by category."""
    path = request.path.removeprefix(prefix)
    if re.fullmatch(r"/api/\d+/envelope/", path) and request.method == "POST":
        return _of_envelope(item_headers(request.plain_body()))
    line = f"{request.method} {path}"
    return Counter(category for pattern, category in ENDPOINTS if re.match(pattern, line))


def _of_envelope(headers: list[dict]) -> Counter[str]:
    counts: Counter[str] = Counter()
    has_event = any(header["type"] in EVENTS for header in headers)
    for header in headers:
        kind = header["type"]
        count = header.get("item_count", 1) if kind in CONTAINERS else 1
        category = TYPES.get(kind, "other")
        if kind == "profile_chunk":
            is_ui = header.get("platform") in USER_PLATFORMS
            category = "profile_chunk_ui" if is_ui else "profile_chunk"
        elif header.get("attachment_type") in CRASH_REPORTS and not has_event:
            category = "error"
            has_event = True  # One event, however many reports it is made of.
        counts[category] += count
    return counts


def of_mirror(admin: str, authority: str) -> tuple[Counter[str], Counter[str]]:
    """What the mirror has counted for the outbound at this authority: delivered by category, and
    everything else by category and outcome."""
    with urlopen(f"{admin}/metrics", timeout=10) as response:
        text = response.read().decode()
    delivered: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for labels, value in re.findall(r"^sentry_mirror_items_total\{(.*)\} (\d+)$", text, re.MULTILINE):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if f"@{authority}/" not in label["outbound"] or value == "0":
            continue
        if label["outcome"] == "delivered":
            delivered[label["category"]] += int(value)
        else:
            others[f"{label['category']} {label['outcome']}"] += int(value)
    return delivered, others
