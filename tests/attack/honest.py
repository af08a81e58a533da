"""Honest clients of a mirror: `honest.py PORT KEY CLIENTS PER_SECOND`, until standard input ends.

Each keeps a connection, and takes a new one where the mirror closed it. Then a line of JSON says how
many requests they sent, the median and the 99th percentile of the time to the answer, and the statuses.
A request without an answer counts as "lost".
"""

import gzip
import json
import socket
import sys
import threading
import time
from collections import Counter

from lib import Stream, envelope, post


class Client(threading.Thread):
    """One client, with its share of the requests."""

    def __init__(self, port: int, request: bytes, pause: float, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._request = request
        self._pause = pause
        self._end = end
        self._connection: socket.socket | None = None
        self.is_answered = threading.Event()
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()

    def run(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            began = time.monotonic()
            status = self._exchange()
            self.seconds.append(time.monotonic() - began)
            self.statuses[status] += 1
            if status == "200":
                self.is_answered.set()
            due = max(due + self._pause, time.monotonic() - self._pause)
            self._end.wait(max(0, due - time.monotonic()))

    def _exchange(self) -> str:
        try:
            if not self._connection:
                self._connection = socket.create_connection(("127.0.0.1", self._port), 30)
                self._stream = Stream(self._connection)
            self._connection.sendall(self._request)
            head, _ = self._stream.message()
        except (OSError, EOFError):
            self._close()
            return "lost"
        if b"connection: close" in head.lower():
            self._close()
        return head.split(b" ", 2)[1].decode()

    def _close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None


def main() -> None:
    port, key, count, per_second = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    body = envelope(key)
    requests = [post(body, key), post(gzip.compress(body), key, "Content-Encoding: gzip\r\n")]
    end = threading.Event()
    clients = [Client(port, requests[i % 2], 1 / per_second, end) for i in range(count)]
    for client in clients:
        client.start()
    if not all(client.is_answered.wait(30) for client in clients):
        print("refused", flush=True)
        return
    for client in clients:
        client.seconds.clear()
        client.statuses.clear()
    print("ready", flush=True)
    sys.stdin.read()
    end.set()
    for client in clients:
        client.join(60)
    seconds = sorted(second for client in clients for second in client.seconds)
    statuses = sum((client.statuses for client in clients), Counter())
    at = lambda share: 1000 * seconds[min(len(seconds) - 1, int(share * len(seconds)))]
    print(json.dumps({"sent": len(seconds), "p50_ms": at(0.5), "p99_ms": at(0.99), "statuses": statuses}))


if __name__ == "__main__":
    main()
