"""Egress proxies between the mirror and its outbounds: squid and tinyproxy, with and without credentials."""

import os
import subprocess

from peers import Certificates, Checks, Mirror, Origin, Peer, Work, field, free_port, lib, payload, wait_until

# What only squid resolves, from a file of its own. It denies the second one, and nobody listens at the third.
HOST, FORBIDDEN, DOWN = "sentry.test", "forbidden.test", "down.test"

PASSWORD = "pa55word:@/5ec7e7"
ESCAPED = "pa55word%3A%40%2F5ec7e7"
SECRETS = (PASSWORD, ESCAPED, "wr0ng5ec7e7")

LARGE = lib.envelope(size=1 << 20)


class Squid(Peer):
    """squid with two ports: one for all, and one that wants credentials."""

    def __init__(self, work: Work, name: str = "squid", open_port: int = 0) -> None:
        folder, self.open_port, self.port = work.folder(name), open_port or free_port(), free_port()
        hashed = subprocess.run(
            ["openssl", "passwd", "-apr1", PASSWORD], check=True, capture_output=True, text=True
        ).stdout
        (folder / "passwords").write_text(f"mirror:{hashed}")
        (folder / "hosts").write_text(f"127.0.0.1 {HOST} {FORBIDDEN}\n127.0.0.200 {DOWN}\n")
        self._access = folder / "access.log"
        path = folder / "squid.conf"
        path.write_text(
            f"http_port 127.0.0.1:{self.open_port} name=open\n"
            f"http_port 127.0.0.1:{self.port} name=closed\n"
            f"pid_filename {folder}/squid.pid\ncache_log {folder}/cache.log\n"
            f"access_log stdio:{self._access}\nbuffered_logs off\ncoredump_dir {folder}\nhosts_file {folder}/hosts\n"
            "cache deny all\npinger_enable off\nvisible_hostname squid.test\nshutdown_lifetime 0 seconds\n"
            "dns_nameservers 127.0.0.1\n"
            f"auth_param basic program /usr/lib/squid/basic_ncsa_auth {folder}/passwords\n"
            "auth_param basic children 1\nauth_param basic realm mirror\n"
            f"acl forbidden dstdomain {FORBIDDEN}\nacl open myportname open\nacl known proxy_auth REQUIRED\n"
            "http_access deny forbidden\nhttp_access allow open\nhttp_access allow known\nhttp_access deny all\n"
        )
        super().__init__(name, folder, ["squid", "-N", "-f", str(path)], self.port)

    def tunnels(self) -> int:
        """How many tunnels have ended that it had opened."""
        lines = self._access.read_text().splitlines() if self._access.exists() else []
        return sum("TCP_TUNNEL/200" in line and " CONNECT " in line for line in lines)


class Tinyproxy(Peer):
    """tinyproxy, which answers in HTTP/1.0 and wants credentials."""

    def __init__(self, work: Work) -> None:
        folder, port = work.folder("tinyproxy"), free_port()
        path = folder / "tinyproxy.conf"
        path.write_text(
            f"Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nLogFile \"{folder}/log\"\nLogLevel Info\n"
            f"PidFile \"{folder}/pid\"\nBasicAuth mirror {PASSWORD.replace(':', '-').replace('@', '-').replace('/', '-')}\n"
        )
        super().__init__("tinyproxy", folder, ["tinyproxy", "-d", "-c", str(path)], port)


class Origins:
    """What is behind the proxies."""

    def __init__(self, work: Work) -> None:
        self.certificates = Certificates(work.path / "proxies-tls")
        self.plain, self.tls, self.direct = Origin(), Origin(self.certificates.context()), Origin()
        self.trust = f"tls: {{ca_file: {self.certificates.authority}}}\n"

    def outbound(self, scheme: str, proxy: str, host: str = HOST) -> dict:
        """An outbound at one of them, reached through a proxy."""
        port = {"http": self.plain, "https": self.tls}[scheme].port
        return {"dsn": f"{scheme}://{lib.OUT_KEY}@{host}:{port}/1", "proxy": proxy}

    def mirror(self, outbound: dict, direct: bool = True) -> Mirror:
        """A mirror with that outbound, and one that it reaches by itself."""
        other = [f"http://{lib.OUT_KEY}@127.0.0.1:{self.direct.port}/2"] if direct else []
        return Mirror([outbound, *other], self.trust)


def delivers(origins: Origins, scheme: str, proxy: str, host: str = HOST) -> None:
    """Five requests, one of them large, arrive as they do without the proxy."""
    with origins.mirror(origins.outbound(scheme, proxy, host)) as mirror:
        bodies = (lib.envelope(), LARGE, lib.envelope(), lib.envelope(size=70_000), lib.envelope())
        assert mirror.send(*bodies) == [200] * 5
        origin = {"http": origins.plain, "https": origins.tls}[scheme]
        through, direct = origin.take(5), origins.direct.take(5)
        for (head, body), (other_head, other_body) in zip(through, direct, strict=True):
            assert payload(body) == payload(other_body), "the body is another one"
            assert head.split()[1] == "/api/1/envelope/", head
            assert field(head, "X-Sentry-Auth") == field(other_head, "X-Sentry-Auth"), (head, other_head)
            assert field(head, "Content-Length") == [str(len(body))], head
            # The proxy may append to it. What is in it keeps mirrors from feeding themselves.
            assert field(other_head, "Via")[0] in ", ".join(field(head, "Via")), head
            assert not field(head, "Proxy-Authorization"), "the proxy's credentials went on to the upstream"
        mirror.wait_for_deliveries(10, "2xx")
        is_quiet(mirror)


def is_quiet(mirror: Mirror) -> None:
    """No output has a password."""
    for text in ("".join(mirror.log), *map(mirror.page, ("/status", "/config", "/metrics"))):
        for secret in SECRETS:
            assert secret not in text, f"{secret} is shown"


def refuses(origins: Origins, outbound: dict, outcome: str, words: str) -> None:
    """The proxy refuses: that is counted and told, and the other outbound gets everything."""
    with origins.mirror(outbound) as mirror:
        assert mirror.send() == [200]
        origins.direct.take(1)
        mirror.wait_for_deliveries(1, outcome)
        if words:
            line = mirror.wait_for_line(words)
            assert (f"the proxy {outbound['proxy'].split('@')[-1].removeprefix('http://')}" in line) == (
                outcome == "proxy"
            ), line
        is_quiet(mirror)
    with origins.mirror(outbound, direct=False) as mirror:
        status = mirror.send()[0]
        assert outcome != "proxy" or status == 503, f"the SDK is told {status}, which is the proxy's answer"


def keeps_one_tunnel(origins: Origins, squid: Squid) -> None:
    """Requests share a tunnel."""
    before, connections = squid.tunnels(), origins.tls.connections
    with origins.mirror(origins.outbound("https", f"http://127.0.0.1:{squid.open_port}")) as mirror:
        assert mirror.send(*[lib.envelope()] * 20) == [200] * 20
        origins.tls.take(20)
        origins.direct.take(20)
    wait_until(lambda: squid.tunnels() > before, "squid notes the end of the tunnel")
    assert squid.tunnels() == before + 1, f"{squid.tunnels() - before} tunnels"
    assert origins.tls.connections == connections + 1


def survives_its_end(origins: Origins, work: Work) -> None:
    """A proxy that has gone is told as unreachable, and used again when it is back."""
    squid = Squid(work, "squid-that-ends")
    proxy = f"http://127.0.0.1:{squid.open_port}"
    with origins.mirror(origins.outbound("https", proxy)) as mirror:
        assert mirror.send() == [200]
        squid.stop()
        assert mirror.send() == [200]
        origins.direct.take(2)
        mirror.wait_for_line(f"the proxy 127.0.0.1:{squid.open_port} cannot be reached")
        assert mirror.metric("sentry_mirror_deliveries_total", outcome="2xx") == 3
        origins.tls.take(1)
        with Squid(work, "squid-that-is-back", squid.open_port):
            assert mirror.send() == [200]
            origins.tls.take(1)
            origins.direct.take(1)


def by_environment(origins: Origins, squid: Squid) -> None:
    """HTTPS_PROXY names the proxy, and NO_PROXY an exception."""
    os.environ["HTTPS_PROXY"] = f"http://mirror:{ESCAPED}@127.0.0.1:{squid.port}"
    dsn = f"https://{lib.OUT_KEY}@{HOST}:{origins.tls.port}/1"
    tunnels = squid.tunnels()
    try:
        with Mirror([dsn], origins.trust) as mirror:
            assert mirror.send() == [200]
            origins.tls.take(1)
            is_quiet(mirror)
        os.environ["NO_PROXY"] = ".test"
        with Mirror([dsn], origins.trust) as mirror:
            assert mirror.send() == [503]
            mirror.wait_for_deliveries(1, "dns")
    finally:
        os.environ.pop("HTTPS_PROXY")
        os.environ.pop("NO_PROXY", None)
    wait_until(lambda: squid.tunnels() == tunnels + 1, "squid notes the end of one tunnel")


def tries(work: Work, origins: Origins, outbound: dict, words: str) -> None:
    """`--check --connect` goes through the proxy, and says what that does wrong."""
    path = work.path / "check.yml"
    keys = lib.json.dumps([{"inbound": f"http://{lib.KEY}@mirror.example/1", "outbound": [outbound]}])
    path.write_text(f"ip: 127.0.0.1\nport: 0\n{origins.trust}keys: {keys}\n")
    command = [lib.BINARY, "--check", "--connect", "-c", path]
    tried = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = tried.stdout + tried.stderr
    assert words in said, said
    assert not any(secret in said for secret in SECRETS), said


def run(checks: Checks, work: Work) -> None:
    """All checks of proxies."""
    origins = Origins(work)
    with Squid(work) as squid, Tinyproxy(work) as tinyproxy:
        squids(checks, origins, squid)
        checks.run("squid: 20 requests take one tunnel", lambda: keeps_one_tunnel(origins, squid))
        checks.run("squid ends and is back: told as the proxy's", lambda: survives_its_end(origins, work))
        checks.run("squid by HTTPS_PROXY, and not by NO_PROXY", lambda: by_environment(origins, squid))
        tinyproxies(checks, origins, tinyproxy)
        for scheme in ("https", "http"):
            right = origins.outbound(scheme, f"http://mirror:{ESCAPED}@127.0.0.1:{squid.port}")
            none = origins.outbound(scheme, f"http://127.0.0.1:{tinyproxy.port}", "127.0.0.1")
            for what, outbound, words in (
                ("squid, the right credentials", right, "✓"),
                ("tinyproxy, no credentials", none, "it wants other credentials"),
            ):
                checks.run(
                    f"--check --connect, {scheme}, {what}", lambda: tries(work, origins, outbound, words)
                )


def squids(checks: Checks, origins: Origins, squid: Squid) -> None:
    """Credentials and refusals of squid."""
    anyone, closed = f"127.0.0.1:{squid.open_port}", f"127.0.0.1:{squid.port}"
    right, wrong = f"http://mirror:{ESCAPED}@{closed}", f"http://mirror:wr0ng5ec7e7@{closed}"
    credentials = "answered 407: it wants other credentials"
    for scheme, form in (("https", "CONNECT"), ("http", "absolute form")):
        checks.run(f"squid, {form}: without credentials", lambda: delivers(origins, scheme, f"http://{anyone}"))
        checks.run(f"squid, {form}: the right credentials", lambda: delivers(origins, scheme, right))
        for what, proxy in (("wrong", wrong), ("no", f"http://{closed}")):
            outbound = origins.outbound(scheme, proxy)
            checks.run(
                f"squid, {form}: {what} credentials are told as the proxy's",
                lambda: refuses(origins, outbound, "proxy", credentials),
            )
    for host, scheme, outcome, words in (
        (FORBIDDEN, "https", "proxy", "answered 403: it does not connect"),
        (DOWN, "https", "proxy", "answered 503: it does not connect"),
        # Without a tunnel the answer could be the upstream's.
        (FORBIDDEN, "http", "4xx", ""),
        (DOWN, "http", "5xx", ""),
    ):
        outbound = origins.outbound(scheme, f"http://{anyone}", host)
        checks.run(
            f"squid refuses {host} over {scheme}: counted as {outcome}",
            lambda: refuses(origins, outbound, outcome, words),
        )


def tinyproxies(checks: Checks, origins: Origins, tinyproxy: Tinyproxy) -> None:
    """Credentials and refusals of tinyproxy, which resolves no names here."""
    address, host = f"127.0.0.1:{tinyproxy.port}", "127.0.0.1"
    right = f"http://mirror:{ESCAPED.replace('%3A', '-').replace('%40', '-').replace('%2F', '-')}@{address}"
    wrong = f"http://mirror:wr0ng5ec7e7@{address}"
    for scheme, form in (("https", "CONNECT"), ("http", "absolute form")):
        checks.run(f"tinyproxy, {form}: the right credentials", lambda: delivers(origins, scheme, right, host))
        none = origins.outbound(scheme, f"http://{address}", host)
        checks.run(
            f"tinyproxy, {form}: no credentials are told as the proxy's",
            lambda: refuses(origins, none, "proxy", "it wants other credentials"),
        )
    outbound = origins.outbound("https", wrong, host)
    checks.run(
        "tinyproxy, CONNECT: wrong credentials, which it answers 401, are told as the proxy's",
        lambda: refuses(origins, outbound, "proxy", "answered 401: it wants other credentials"),
    )
