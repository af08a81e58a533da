"""Real SDKs over https through a load balancer: what arrives must be the same as without it.

    SDK -> nginx (ends TLS) -> tap -> mirror -> sink A (the primary), sink B

nginx runs with the configuration of `deploy/nginx.conf`, with other ports and times. The tap stands
behind it, because in front of it nothing can be read; so what is compared is what nginx makes of the
SDK's requests with what the sinks get. Then the SDK runs again, with the mirror ending TLS itself: as many
requests have to arrive. In the end the addresses of clients are looked at.
"""

import atexit
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "sdk"))

from clients import Client
from expected import Dsn
from mirror import Mirror
from suite import ARRIVAL_SECONDS, Step, Suite, main, receivers, run_program
from tap import Tap
from wire import Message

CONFIG = Path(__file__).resolve().parent.parent.parent / "deploy/nginx.conf"
START_SECONDS = 10
STOP_SECONDS = 10

# Who nginx is to see. Every address of 127.0.0.0/8 is this host's.
CLIENT_ADDRESS = "127.0.0.2"


class Nginx:
    """nginx with TLS on a free port of the loopback, in front of `target`."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        self._folder = folder
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        server = CONFIG.read_text()
        for default, ours in (
            ("server 127.0.0.1:3000;", f"server 127.0.0.1:{target};"),
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("/etc/nginx/sentry-mirror.", f"{folder}/tls."),
            # The suite waits for the end of all connections to the mirror.
            ("keepalive_timeout 60s;", "keepalive_timeout 1s;"),
        ):
            assert default in server, default
            server = server.replace(default, ours)
        places = "".join(
            f"{kind}_temp_path {folder}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        path = folder / "nginx.conf"
        path.write_text(
            f"daemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/logs/error.log error;\n"
            + ("user root;\n" if os.geteuid() == 0 else "")
            + f"events {{}}\nhttp {{\naccess_log off;\n{places}{server}}}\n"
        )
        self._process = subprocess.Popen(
            ["nginx", "-p", folder, "-c", path, "-e", folder / "logs/error.log"],
            stdin=subprocess.DEVNULL,
        )
        atexit.register(self._process.kill)
        self._wait()

    def stop(self) -> str:
        """End it; what it has complained about, or nothing."""
        self._process.terminate()
        self._process.wait(STOP_SECONDS)
        log = self._folder / "logs/error.log"
        complaints, _ = log.read_text(), log.write_text("")
        return complaints

    def _wait(self) -> None:
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.02)
        raise SystemExit("nginx does not start")


class Balanced(Suite):
    """The suite with nginx between the SDKs and the tap."""

    def __init__(self, binary: Path, folder: Path) -> None:
        super().__init__(binary, folder)
        self._binary = binary
        self._installed = folder
        self._folder = folder / "balancer"
        make_certificate(self._folder)
        self._tap: Tap | None = None
        self._nginx: Nginx | None = None

    def line(self, client: Client) -> tuple[Tap, Dsn]:
        self._tap = Tap(self.mirror.port)
        self._nginx = Nginx(self._folder, self._tap.port)
        # By name: not every SDK takes a certificate for an address.
        authority = f"localhost:{self._nginx.port}"
        dsn = replace(self.inbound, authority=authority, secret=client.secret, scheme="https")
        return self._tap, dsn

    def at_tap(self, step: Step) -> Step:
        # nginx waits for the whole body, and tells its length.
        return replace(step, framing="length") if step.framing == "chunked" else step

    def drive(self, client: Client) -> None:
        super().drive(client)
        self.tally.check(f"{client.name}, nginx", self._nginx.stop())
        requests, connections = len(self._tap.exchanges), self._tap.connections
        problem = f"{connections} connections for {requests} requests"
        is_kept = connections < requests
        hosts = {host for exchange in self._tap.exchanges for host in exchange.request.values("host")}
        named = {f"localhost:{self._nginx.port}"}
        self.tally.check(f"{client.name}, host", "" if hosts == named else f"{hosts} for {named}")
        self.tally.check(f"{client.name}, keep-alive to the mirror", "" if is_kept else problem)
        self.without_balancer(client)

    def without_balancer(self, client: Client) -> None:
        """What has come through nginx comes, too, where a listener of the mirror has the certificate."""
        port = free_port()
        files = f"{{cert_file: {self._folder}/tls.crt, key_file: {self._folder}/tls.key}}"
        extra = f"listen: [{{address: '127.0.0.1:{port}', tls: {files}}}]\n"
        mirror = Mirror(
            self._binary, self.inbound, self.outbounds, self._installed, extra=extra
        )
        dsn = replace(
            self.inbound, authority=f"localhost:{port}", secret=client.secret, scheme="https"
        )
        _, problem = run_program(client, dsn)
        what = f"{client.name} over TLS of the mirror"
        self.tally.check(what, problem)
        requests = [exchange.request for exchange in self._tap.exchanges]
        for outbound, sink in zip(self.outbounds, self.sinks):
            wanted = sum(outbound in receivers(request, self.outbounds) for request in requests)
            arrived = len(sink.claim(wanted, ARRIVAL_SECONDS))
            problem = "" if arrived == wanted else f"{arrived} instead of {wanted}"
            self.tally.check(f"{what}, deliveries to sink {sink.name}", problem)
            print(f"{what}: {arrived} requests at sink {sink.name}")
        self.tally.check(f"{what}, mirror", mirror.stop())

    def end(self) -> None:
        super().end()
        for forwards in (False, True):
            self.client_address(forwards)

    def client_address(self, forwards: bool) -> None:
        """Outbounds learn the client's address if they are to, and only what nginx says of it."""
        extra = f"forward_client_ip: {str(forwards).lower()}\n"
        mirror = Mirror(
            self._binary, self.inbound, self.outbounds, self._installed, extra=extra
        )
        nginx = Nginx(self._folder, mirror.port)
        status = post(nginx.port, self.inbound, self._folder)
        what = f"client address, {extra.strip()}"
        self.tally.check(f"{what}, nginx", nginx.stop())
        self.tally.check(what, "" if status == 200 else f"answered {status}")
        wanted = [CLIENT_ADDRESS, "127.0.0.1"] if forwards else []
        for sink in self.sinks:
            for delivery in sink.claim(1, ARRIVAL_SECONDS) or [None]:
                got = addresses(delivery.request) if delivery else "no delivery"
                problem = "" if got == wanted else f"{got} instead of {wanted}"
                self.tally.check(f"{what}, at sink {sink.name}", problem)
                print(f"{what}: sink {sink.name} is told {got}")
        self.tally.check(f"{what}, mirror", mirror.stop())


def addresses(request: Message) -> list[str]:
    """The members of X-Forwarded-For, which may stand in one line or in several."""
    values = request.values("x-forwarded-for")
    return [address.strip() for value in values for address in value.split(",")]


def post(port: int, inbound: Dsn, folder: Path) -> int:
    """Send an envelope as a client that claims another address; the status of the answer."""
    context = ssl.create_default_context(cafile=str(folder / "tls.crt"))
    connection = http.client.HTTPSConnection(
        "localhost", port, context=context, source_address=(CLIENT_ADDRESS, 0)
    )
    body = json.dumps({"event_id": "0" * 32}) + '\n{"type":"event"}\n{}\n'
    fields = {
        "X-Sentry-Auth": f"Sentry sentry_key={inbound.key}, sentry_version=7",
        "X-Forwarded-For": "203.0.113.9",
    }
    connection.request("POST", f"/api/{inbound.project}/envelope/", body, fields)
    status = connection.getresponse().status
    connection.close()
    return status


def make_certificate(folder: Path) -> None:
    """A certificate for localhost, which the SDKs are told to trust."""
    folder.mkdir(exist_ok=True)
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run(
        ["openssl", *command.split(), *names, *files], check=True, capture_output=True
    )
    for variable in ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"):
        os.environ[variable] = str(folder / "tls.crt")


def free_port() -> int:
    """A port that nobody has at the moment: nginx cannot be told to take any."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main(Balanced))
