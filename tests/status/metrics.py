"""Reads /metrics with Prometheus' own parsers: `python metrics.py ADMIN_URL`.

Both formats have to parse, to mean the same, and to have all that a family needs. The strict parser of
OpenMetrics also complains about families in pieces, buckets out of order and labels that occur twice.
"""

import sys
from urllib.request import Request, urlopen

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as plain


def fetch(url: str, accept: str) -> tuple[str, str]:
    with urlopen(Request(url, headers={"Accept": accept}), timeout=10) as response:
        return response.headers["Content-Type"], response.read().decode()


def samples(families) -> dict[tuple[str, tuple], str]:
    found = {}
    for family in families:
        assert family.documentation, f"{family.name} has no help"
        assert family.type in ("counter", "gauge", "histogram"), family
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} occurs twice"
            found[key] = family.type
    return found


def main() -> None:
    url = f"{sys.argv[1]}/metrics"
    content_type, text = fetch(url, "text/plain")
    assert content_type.startswith("text/plain; version=0.0.4"), content_type
    old = samples(plain.text_string_to_metric_families(text))
    content_type, text = fetch(url, "application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0"), content_type
    new = samples(openmetrics.text_string_to_metric_families(text))
    assert old == new, set(old.items()) ^ set(new.items())
    assert len(new) > 100, len(new)
    print(f"{len(new)} samples, the same in both formats")


main()
