"""Uploads of growing sizes, without a key and unfinished. When the mirror refuses one, every other one is
closed, and larger ones follow that do not fit the holes. What the process has stays within the sum that
docs/limits.md states."""

import socket
import time

from lib import KEY, MIB, Honest, Mirror, Sink, Verdict

KIB = 1024
BUDGET = 512 * MIB
CONNECTIONS = 10_000
IN_FLIGHT = 64
STATED = (24 + 32) * MIB + BUDGET + (CONNECTIONS + IN_FLIGHT) * 24 * KIB + 2 * 14 * KIB + 64 * KIB
SIZES = [size * KIB for size in (70, 143, 294, 603, 1236)]


def upload(mirror: Mirror, size: int) -> socket.socket | None:
    """An upload whose last byte does not come; `None` where the mirror does not take it."""
    connection = mirror.connect()
    head = f"POST /tunnel HTTP/1.1\r\nHost: m\r\nContent-Length: {size}\r\n\r\n".encode()
    try:
        connection.sendall(head + bytes(size - 1))
    except OSError:
        return None
    connection.setblocking(False)
    return connection


def is_refused(connection: socket.socket) -> bool:
    """Whether it was answered."""
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return False
    except OSError:
        return True


def fill(mirror: Mirror, size: int, room: int) -> list[socket.socket]:
    """As many uploads of `size` as are taken."""
    taken = []
    while len(taken) < room:
        batch = [upload(mirror, size) for _ in range(max(1, MIB // size))]
        time.sleep(0.002)
        if None in batch or any(is_refused(connection) for connection in batch):
            break
        taken += batch
    return taken


verdict = Verdict()
config = (
    f"workers: 1\ntimeouts: {{body: 300s}}\npool: {{idle_connections: {IN_FLIGHT}}}\n"
    f"limits: {{memory_bytes: {BUDGET // MIB}MiB, connections: {CONNECTIONS}, in_flight: {IN_FLIGHT}}}\n"
)
with Sink() as sink, Mirror({KEY: [sink.dsn()]}, config) as mirror:
    honest = Honest(mirror)
    held: list[socket.socket] = []
    for size in SIZES:
        held += fill(mirror, size, CONNECTIONS - 100 - len(held))
        for connection in held[::2]:
            connection.close()
        del held[::2]
        time.sleep(0.3)
    served = honest.stop()
    verdict.line(
        "holes",
        served,
        mirror,
        median_under_5_ms=served.p50_ms <= 5,
        p99_under_50_ms=served.p99_ms <= 50,
        **{f"within_{STATED // MIB}_MiB": mirror.peak() <= STATED},
    )
verdict.end()
