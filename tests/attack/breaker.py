"""A client whose requests are reset, or never answered, by a firewall in front of the upstream.

Honest clients use the same upstream, by another route or by the very same.
"""

import socket
import struct
import threading
import time

from lib import KEY, OTHER_KEY, Honest, Mirror, Stream, Upstream, Verdict, envelope, post

SECONDS = 5
ATTACKERS = 4
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
RESET = struct.pack("ii", 1, 0)


def guard(connection: socket.socket, is_silent: bool) -> None:
    """The upstream: what holds the word is reset, or waits until the mirror gives up."""
    stream = Stream(connection)
    while True:
        _, body = stream.message()
        if b"EVIL" not in body:
            connection.sendall(ANSWER)
        elif is_silent:
            connection.recv(1)
            return
        else:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return


def attack(mirror: Mirror, key: str, end: threading.Event) -> None:
    request = post(envelope(key) + b"EVIL\n", key)
    while not end.is_set():
        try:
            with mirror.connect() as connection:
                stream = Stream(connection)
                while not end.is_set():
                    connection.sendall(request)
                    stream.message()
        except (OSError, EOFError):
            pass


def one(verdict: Verdict, driver: str, is_silent: bool, honest_key: str, is_first: bool) -> None:
    upstream = Upstream(lambda connection: guard(connection, is_silent))
    routes = {KEY: [upstream.dsn(1)], OTHER_KEY: [upstream.dsn(2)]}
    config = f"workers: 1\ndriver: {driver}\nreply_timeout: 1s\ntimeouts: {{exchange: 1s}}\n"
    with Mirror(routes, config) as mirror:
        what = "left without an answer" if is_silent else "reset"
        where = "the same route" if honest_key == OTHER_KEY else "another route"
        what = f"breaker, {driver}, {what}, {where}{', attack first' if is_first else ''}"
        end = threading.Event()
        # Before the upstream has ever answered, or after.
        honest = None if is_first else Honest(mirror, honest_key)
        for _ in range(ATTACKERS):
            threading.Thread(target=attack, args=(mirror, OTHER_KEY, end), daemon=True).start()
        if is_first:
            time.sleep(2)
            try:
                honest = Honest(mirror, honest_key)
            except SystemExit:
                return verdict.line(what, None, mirror, none_refused=False)
        time.sleep(SECONDS)
        served = honest.stop()
        end.set()
        verdict.line(what, served, mirror, none_refused=served.refused == 0)


verdict = Verdict()
for driver in ("auto", "epoll"):
    for is_silent in (False, True):
        for key, is_first in ((KEY, True), (KEY, False), (OTHER_KEY, False)):
            one(verdict, driver, is_silent, key, is_first)
verdict.end()
