"""The SDKs of the suite: one row is one run of a program in `clients/`.

A new client is a program there that announces what it sends (see README.md), a row here and, if
it needs something installed, a line in `run`.
"""

from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).parent / "clients"


@dataclass(frozen=True)
class Client:
    """A program with a real SDK in it."""

    name: str
    command: tuple[str | Path, ...]
    secret: str = ""  # Of its DSN: some SDKs still send it, and it must not leak.


def clients(installed: Path) -> list[Client]:
    """All clients, given the folder in which `run` has installed the SDKs."""
    python = PROGRAMS / "python.py"
    node = PROGRAMS / "node.cjs"
    browser = PROGRAMS / "browser.cjs"
    modules = installed / "node" / "node_modules"
    profiling = installed / "node-profiling" / "node_modules"
    cli = installed / "cli" / "node_modules/.bin/sentry-cli"
    web = installed / "browser" / "node_modules"
    return [
        Client("python", (installed / "python/bin/python", python, "gzip")),
        Client("python-br", (installed / "python-br/bin/python", python, "br"), "inboundsecret"),
        Client("node", ("node", node, modules / "@sentry/node")),
        Client("node-10", ("node", node, modules / "sentry-node-10")),
        Client("node-tunnel", ("node", node, modules / "@sentry/node", "/tunnel")),
        Client("node-profiling", ("node", PROGRAMS / "node-profiling.cjs", profiling)),
        Client("rust", (installed / "rust/debug/sdk-suite-rust",), "inboundsecret"),
        Client("cli", ("python3", PROGRAMS / "cli.py", cli)),
        Client("curl", ("python3", PROGRAMS / "curl.py"), "inboundsecret"),
        Client("browser", ("node", browser, web, "@sentry/browser", "direct")),
        Client("browser-10", ("node", browser, web, "sentry-browser-10", "direct")),
        Client("browser-tunnel", ("node", browser, web, "@sentry/browser", "tunnel")),
        Client("browser-ask", ("node", browser, web, "@sentry/browser", "preflight")),
    ]
