"""nginx as an outbound that requires a certificate of the mirror."""

import json

from peers import Certificates, Checks, Mirror, Nginx, Origin, Work, field, free_port, lib, payload


class Outbound:
    """nginx, which passes on requests of clients that it knows."""

    def __init__(self, work: Work, certificates: Certificates, version: str) -> None:
        self.origin, self.port = Origin(), free_port()
        certificate, key = certificates.server
        self.nginx = Nginx(
            work,
            f"nginx-{version}",
            self.port,
            "server {\n"
            f"listen 127.0.0.1:{self.port} ssl;\nssl_protocols {version};\n"
            f"ssl_certificate {certificate};\nssl_certificate_key {key};\n"
            f"ssl_client_certificate {certificates.authority};\nssl_verify_client on;\n"
            "client_max_body_size 0;\n"
            "location / {\n"
            f"proxy_pass http://127.0.0.1:{self.origin.port};\nproxy_http_version 1.1;\n"
            "proxy_set_header X-Client $ssl_client_s_dn;\n}\n}\n",
        )


def mirror(outbound: Outbound, other: Origin, certificates: Certificates, files: tuple | None) -> Mirror:
    """A mirror with that outbound and one that wants no certificate."""
    tls = {"ca_file": str(certificates.authority), "server_name": "sentry.test"}
    if files:
        tls |= {"cert_file": str(files[0]), "key_file": str(files[1])}
    first = {"dsn": f"https://{lib.OUT_KEY}@127.0.0.1:{outbound.port}/1", "tls": tls}
    return Mirror([first, f"http://{lib.OUT_KEY}@127.0.0.1:{other.port}/2"])


def accepts(outbound: Outbound, other: Origin, certificates: Certificates) -> None:
    """With the right certificate everything arrives, over one connection."""
    with mirror(outbound, other, certificates, certificates.client) as running:
        assert running.send(*[lib.envelope(), lib.envelope(size=1 << 20), lib.envelope()]) == [200] * 3
        for (head, body), (_, other_body) in zip(outbound.origin.take(3), other.take(3), strict=True):
            assert field(head, "X-Client") == ["CN=client"], head
            assert payload(body) == payload(other_body), "the body is another one"
        running.wait_for_deliveries(6, "2xx")
        assert running.metric("sentry_mirror_upstream_connections_opened_total", origin=origin(outbound)) == 1


def origin(outbound: Outbound) -> str:
    """Its name in metrics."""
    return f"https://127.0.0.1:{outbound.port}"


def refuses(outbound: Outbound, other: Origin, certificates: Certificates, files: tuple | None, words: str) -> None:
    """nginx ends the handshake well and then answers 400: the words are in the log, and the SDK is not told."""
    with mirror(outbound, other, certificates, files) as running:
        assert running.send() == [200]
        other.take(1)
        running.wait_for_deliveries(1, "4xx")
        line = running.wait_for_line("outbound is rejecting requests")
        assert words in line, line
        outbounds = json.loads(running.page("/status"))["routes"][0]["outbounds"]
        reasons = [incident["reason"] for incident in outbounds[0]["incidents"]]
        assert any(words in reason for reason in reasons), reasons


def run(checks: Checks, work: Work) -> None:
    """All checks of client certificates."""
    certificates, other = Certificates(work.path / "client-tls"), Origin()
    for version in ("TLSv1.2", "TLSv1.3"):
        outbound = Outbound(work, certificates, version)
        with outbound.nginx:
            checks.run(
                f"nginx, {version}: the right certificate",
                lambda: accepts(outbound, other, certificates),
            )
            for what, files, words in (
                ("no certificate", None, "No required SSL certificate was sent"),
                ("a certificate of another authority", certificates.stranger, "The SSL certificate error"),
            ):
                checks.run(
                    f"nginx, {version}: {what}, which it answers 400",
                    lambda: refuses(outbound, other, certificates, files, words),
                )
