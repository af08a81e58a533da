"""HAProxy and nginx in front of the mirror: who does it take for the client?"""

import socket
import ssl

from peers import Certificates, Checks, Mirror, Nginx, Origin, Peer, Work, exchange, field, free_port, lib, wait_until

# All addresses of 127.0.0.0/8 are this host's. The balancers come from 127.0.0.1 unless told otherwise.
CLIENT, ELSEWHERE = "127.0.0.2", "127.0.0.9"

FORGED = (
    "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 198.51.100.2, 198.51.100.3\r\n"
    "Forwarded: for=198.51.100.4\r\nX-Real-IP: 198.51.100.5\r\nTrue-Client-IP: 198.51.100.6\r\n"
    "CF-Connecting-IP: 198.51.100.7\r\nX-Client-IP: 198.51.100.8\r\n"
)


class Haproxy(Peer):
    """HAProxy, which passes on TCP, or requests if told so."""

    def __init__(self, work: Work, name: str, server: str, mode: str = "tcp") -> None:
        folder, port = work.folder(name), free_port()
        path = folder / "haproxy.cfg"
        path.write_text(
            f"global\n  maxconn 100\ndefaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 30s\n"
            f"  timeout server 30s\nlisten sdks\n  bind 127.0.0.1:{port}\n  server mirror {server}\n"
        )
        super().__init__(name, folder, ["haproxy", "-db", "-f", str(path)], port)


class Outbounds:
    """One that gets clients' addresses, and one that does not."""

    def __init__(self) -> None:
        self.told, self.untold = Origin(), Origin()

    def mirror(self, trusted: str, config: str = "") -> Mirror:
        """A mirror with both, which trusts these networks."""
        dsns = [f"http://{lib.OUT_KEY}@127.0.0.1:{origin.port}/1" for origin in (self.told, self.untold)]
        return Mirror(
            [dsns[0], {"dsn": dsns[1], "client_address": "hide"}],
            f"forward_client_ip: true\nclient_address: {{trusted_proxies: {trusted}}}\n{config}",
        )

    def were_told(self, count: int, address: str) -> None:
        """Each request had this address for one of them, and none for the other."""
        for head, _ in self.told.take(count):
            assert field(head, "X-Forwarded-For") == [address], head
            assert "198.51.100" not in head, head
        for head, _ in self.untold.take(count):
            assert "127.0.0." not in head.split("\r\n", 2)[2].replace("Host: 127.0.0.1", ""), head
            assert "198.51.100" not in head, head


def connect(port: int, source: str = CLIENT) -> socket.socket:
    """A connection from another address of this host."""
    return socket.create_connection(("127.0.0.1", port), 20, source_address=(source, 0))


def send(port: int, fields: str = "", context: ssl.SSLContext | None = None) -> list[int]:
    """Three envelopes over one connection; the status of each answer."""
    with connect(port) as connection:
        if context:
            connection = context.wrap_socket(connection, server_hostname="sentry.test")
        return exchange(connection, (lib.envelope(), lib.envelope(size=1 << 20), lib.envelope()), fields)


def closed(mirror: Mirror, reason: str) -> float:
    """The connections that the mirror has closed for that reason."""
    return mirror.metric("sentry_mirror_sdk_connections_closed_total", reason=reason)


def proxy_protocol(work: Work, certificates: Certificates, option: str, is_tls: bool) -> None:
    """The client is who HAProxy says, whatever it writes itself, and health checks disturb nobody."""
    outbounds, context, tls = Outbounds(), None, ""
    if is_tls:
        context = ssl.create_default_context(cafile=str(certificates.authority))
        tls = f", tls: {{cert_file: {certificates.server[0]}, key_file: {certificates.server[1]}}}"
    listen = f"listen: [{{address: '127.0.0.1:0', proxy_protocol: [127.0.0.1/32]{tls}}}]\n"
    with outbounds.mirror("[]", listen) as mirror:
        server = f"127.0.0.1:{mirror.listener()} {option} check check-send-proxy inter 50ms"
        with Haproxy(work, f"haproxy-{option}{'-tls' if is_tls else ''}", server) as haproxy:
            assert send(haproxy.port, FORGED, context) == [200] * 3
            outbounds.were_told(3, CLIENT)
            wait_until(
                lambda: mirror.metric("sentry_mirror_sdk_connections_total") > 3, "HAProxy checks whether it is up"
            )
            for reason in ("proxy_header", "untrusted_proxy"):
                assert closed(mirror, reason) == 0, f"{closed(mirror, reason)} connections closed: {reason}"


def proxy_protocol_from_elsewhere(work: Work) -> None:
    """A balancer that is not trusted is closed and counted."""
    outbounds = Outbounds()
    listen = "listen: [{address: '127.0.0.1:0', proxy_protocol: [127.0.0.1/32]}]\n"
    with outbounds.mirror("[]", listen) as mirror:
        server = f"127.0.0.1:{mirror.listener()} source {ELSEWHERE} send-proxy-v2"
        with Haproxy(work, "haproxy-elsewhere", server) as haproxy:
            try:
                statuses = send(haproxy.port)
            except (EOFError, OSError):
                statuses = []
            assert statuses == [], statuses
            wait_until(lambda: closed(mirror, "untrusted_proxy") >= 1, "a connection is closed as untrusted_proxy")


def without_header(work: Work) -> None:
    """A balancer that was not told to send the header is closed and counted."""
    outbounds = Outbounds()
    listen = "listen: [{address: '127.0.0.1:0', proxy_protocol: [127.0.0.1/32]}]\n"
    with outbounds.mirror("[]", listen) as mirror:
        with Haproxy(work, "haproxy-without", f"127.0.0.1:{mirror.listener()}") as haproxy:
            try:
                statuses = send(haproxy.port)
            except (EOFError, OSError):
                statuses = []
            assert statuses == [], statuses
            wait_until(lambda: closed(mirror, "proxy_header") >= 1, "a connection is closed as proxy_header")


def nginx_says(work: Work, name: str, directives: str, trusted: str, expected: str) -> None:
    """nginx appends to what the client forged, or sets a field."""
    outbounds, port = Outbounds(), free_port()
    with outbounds.mirror(trusted) as mirror:
        http = (
            f"server {{\nlisten 127.0.0.1:{port};\nclient_max_body_size 0;\nlocation / {{\n"
            f"proxy_pass http://127.0.0.1:{mirror.port};\nproxy_http_version 1.1;\n{directives}\n}}\n}}\n"
        )
        with Nginx(work, name, port, http):
            assert send(port, FORGED) == [200] * 3
            outbounds.were_told(3, expected)


def haproxy_says(work: Work) -> None:
    """HAProxy adds a line of its own behind those that the client forged."""
    outbounds = Outbounds()
    with outbounds.mirror("[127.0.0.1/32]") as mirror:
        with Haproxy(work, "haproxy-http", f"127.0.0.1:{mirror.port}", "http\n  option forwardfor") as haproxy:
            assert send(haproxy.port, FORGED) == [200] * 3
            outbounds.were_told(3, CLIENT)


def run(checks: Checks, work: Work) -> None:
    """All checks of balancers in front."""
    certificates = Certificates(work.path / "balancers-tls")
    for option, version in (("send-proxy", 1), ("send-proxy-v2", 2)):
        for is_tls in (False, True):
            checks.run(
                f"HAProxy, PROXY protocol {version}{', TLS inside' if is_tls else ''}: the client is who it says",
                lambda: proxy_protocol(work, certificates, option, is_tls),
            )
    checks.run("HAProxy from an untrusted address: closed and counted", lambda: proxy_protocol_from_elsewhere(work))
    checks.run("HAProxy without the header: closed and counted", lambda: without_header(work))
    checks.run("HAProxy appends X-Forwarded-For: the client is 127.0.0.2", lambda: haproxy_says(work))
    append = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
    trusted, field_of_its_own = "[127.0.0.1/32]", "[127.0.0.1/32], field: X-Real-IP"
    for what, directives, trusts, expected in (
        ("appends X-Forwarded-For", append, trusted, CLIENT),
        ("sets X-Forwarded-For", "proxy_set_header X-Forwarded-For $remote_addr;", trusted, CLIENT),
        ("sets X-Real-IP", "proxy_set_header X-Real-IP $remote_addr;", field_of_its_own, CLIENT),
        ("sends nothing", 'proxy_set_header X-Forwarded-For "";', trusted, "127.0.0.1"),
        ("is not trusted", append, "[10.0.0.0/8]", "127.0.0.1"),
        ("comes from an untrusted address", f"{append}\nproxy_bind {ELSEWHERE};", trusted, ELSEWHERE),
    ):
        name = "nginx-" + what.lower().replace(" ", "-")
        checks.run(
            f"nginx {what}: the client is {expected}",
            lambda: nginx_says(work, name, directives, trusts, expected),
        )
