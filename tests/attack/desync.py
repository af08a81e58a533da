"""An upstream that answers more than it was asked, as one behind a confused balancer does.

After each fifth request of an attacker the upstream sends a second response, so many microseconds after
the first, or a body behind a 204. Two customers share that upstream. Each answer carries the mark of its
request, so a client sees when it was given another's. What comes after the mirror has looked at a
connection cannot be told from an answer: before the mirror stops using connections twice, that may
mislead one request on each connection that is in use.
"""

import multiprocessing
import re
import threading
import time

from lib import KEY, OTHER_KEY, OUT_KEY, Mirror, Stream, Upstream, Verdict, post

SECONDS = 3
CLIENTS = 4


def response(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


def serve(connection, gap: float, is_body: bool) -> None:
    stream = Stream(connection)
    while True:
        _, body = stream.message()
        mark = re.search(rb"MARK-(\d+)", body)[1]
        is_evil = b"EVIL" in body
        first = b"HTTP/1.1 204 No Content\r\n\r\n" if is_evil and is_body else response(b'{"id":"%s"}' % mark)
        connection.sendall(first)
        if is_evil:
            end = time.perf_counter() + gap
            while time.perf_counter() < end:
                pass
            connection.sendall(response(b'{"id":"unasked"}'))


def upstream(pipe, gap: float, is_body: bool) -> None:
    """The upstream, in a process of its own so that it is not slowed down by the clients."""
    running = Upstream(lambda connection: serve(connection, gap, is_body))
    pipe.send(running.port)
    pipe.recv()


class Client(threading.Thread):
    """Sends marked requests one after the other, and counts the answers that are not its own."""

    def __init__(self, mirror: Mirror, number: int, end: threading.Event) -> None:
        super().__init__(daemon=True)
        self._mirror, self._number, self._end = mirror, number, end
        self.answered = self.misled = self.lost = 0

    def run(self) -> None:
        is_attacker = self._number >= CLIENTS // 2
        key = OTHER_KEY if is_attacker else KEY
        connection = self._mirror.connect()
        stream = Stream(connection)
        for count in range(1_000_000):
            if self._end.is_set():
                return
            mark = b"%d" % (self._number * 1_000_000 + count)
            is_evil = is_attacker and count % 5 == 4
            body = b'{"event_id":"%s"}\n{"type":"x"}\nMARK-%s%s\n'
            event = b"%032d" % count
            body %= (event, mark, b" EVIL" if is_evil else b"")
            try:
                connection.sendall(post(body, key))
                head, answer = stream.message()
            except (OSError, EOFError):
                self.lost += 1
                connection = self._mirror.connect()
                stream = Stream(connection)
                continue
            status = head.split(b" ", 2)[1]
            # The mirror makes the body for a 204, with the id of the event.
            is_own = answer in (b'{"id":"%s"}' % mark, b'{"id":"%s"}' % event)
            self.answered += 1
            self.misled += not is_own and status in (b"200", b"204")
            self.lost += status not in (b"200", b"204")


def attack(verdict: Verdict, driver: str, gap_us: int, is_body: bool) -> tuple[int, int]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=upstream, args=(theirs, gap_us / 1e6, is_body), daemon=True)
    process.start()
    dsns = [f"http://{OUT_KEY}@127.0.0.1:{port}/{project}" for port in [ours.recv()] for project in (1, 2)]
    with Mirror({KEY: dsns[:1], OTHER_KEY: dsns[1:]}, f"workers: 1\ndriver: {driver}\n") as mirror:
        end = threading.Event()
        clients = [Client(mirror, number, end) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        time.sleep(SECONDS)
        end.set()
        for client in clients:
            client.join(30)
        answered, misled, lost = (
            sum(getattr(client, name) for client in clients) for name in ("answered", "misled", "lost")
        )
        kind = "a body behind 204" if is_body else "a second response"
        what = f"desync, {driver}, {kind} after {gap_us} us, {answered} answers, {misled} misled, {lost} lost"
        verdict.line(what, None, mirror, one_per_connection_misled=misled <= CLIENTS, none_lost=lost == 0)
    ours.send("end")
    process.join(10)
    return answered, misled


def main() -> None:
    verdict = Verdict()
    totals = [
        attack(verdict, driver, gap_us, is_body)
        for driver in ("auto", "epoll")
        for gap_us, is_body in ((0, False), (150, False), (500, False), (1000, False), (0, True), (150, True))
    ]
    answered, misled = (sum(part) for part in zip(*totals))
    print(f"desync: {misled} of {answered} answers went to other requests", flush=True)
    verdict.end()


if __name__ == "__main__":
    main()
