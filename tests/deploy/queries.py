"""The alert rules and the dashboard: every expression is PromQL, and every alert is whole.

Read with a parser that is neither ours nor a search for names, which is what the tests in Rust do. The
variables of Grafana stand for what it would put there.
"""

import json
import re
import sys
from pathlib import Path

import promql_parser
import yaml

# Grafana's own variables; those of the dashboard stand in strings only.
VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}
DURATION = re.compile(r"([0-9]+[smhdwy])+")
RULE_KEYS = {"alert", "expr", "for", "labels", "annotations"}


def dashboard_expressions(value: object) -> list[str]:
    """All expressions below a part of the dashboard."""
    if isinstance(value, list):
        return [found for part in value for found in dashboard_expressions(part)]
    if not isinstance(value, dict):
        return []
    own = [value["expr"]] if isinstance(value.get("expr"), str) else []
    return own + [found for part in value.values() for found in dashboard_expressions(part)]


def alert_expressions(path: Path) -> list[str]:
    """The expressions of all alerts, whose other parts are checked."""
    rules = [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        assert rule.keys() <= RULE_KEYS, f"{rule['alert']}: {rule.keys() - RULE_KEYS}"
        assert DURATION.fullmatch(rule.get("for", "0s")), f"{rule['alert']}: {rule['for']}"
    return [rule["expr"] for rule in rules]


def main() -> None:
    deploy = Path(sys.argv[1]) / "deploy"
    alerts = alert_expressions(deploy / "prometheus-alerts.yml")
    panels = dashboard_expressions(json.loads((deploy / "grafana-dashboard.json").read_text()))
    for expression in alerts + panels:
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        try:
            promql_parser.parse(expression)
        except ValueError as error:
            sys.exit(f"this is no PromQL: {expression}\n{error}")
    assert len(alerts) > 5 and len(panels) > 20, (len(alerts), len(panels))
    print(f"ok: {len(alerts)} alerts and {len(panels)} queries of the dashboard are PromQL")


main()
