"""Kill small daemons at random times, one after the other on one state folder, and check the received notifications.

    python repeated_kills.py STATE_DIR KILLS SEED

Prints one JSON object with counts of events and of errors: `missing` notifications, unexplained `copies`, `disorder`,
wrong `ends`. All daemons are forked from this process, so that a cycle takes a tenth of a second; each is a process of
its own. Their receiver is in this process too, without a thread: the kill comes from a timer signal, possibly during a
response. Some responses are 500 although the notification was taken.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import logging
import os
import random
import select
import signal
import sqlite3
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import small_daemon

RECEIVERS = "oncall,log"
MAX_LIFE_SECONDS = 0.12
MAX_LIFE_STARTS = 3  # on a busy machine a daemon lives longer: up to as many times the seconds of the last start
SHARE_KILLED_IN_START = 0.2
SHARE_REFUSED = 0.02
END_TIMEOUT_SECONDS = 60.0
JOURNAL = "committed"

small_daemon.INTERVAL_NS = 20_000_000


@dataclass(frozen=True, slots=True)
class Post:
    """A request, the process that sent it, and the status of the response."""

    pid: int
    status: int
    document: dict

    @property
    def receiver(self):
        return self.document["receiver"]

    @property
    def id(self):
        return self.document["id"]


class Server(http.server.HTTPServer):
    """Handles requests one at a time, in the order in which they were sent, and records their sender."""

    timeout = 0

    def __init__(self, randomness):
        super().__init__(("127.0.0.1", 0), Handler)
        self.randomness = randomness
        self.posts = []
        self.pid = 0

    def handle_error(self, request, client_address):
        pass  # the daemon was killed during its request or response


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:
            return  # killed during the request
        status = 500 if self.server.randomness.random() < SHARE_REFUSED else 200
        self.server.posts.append(Post(self.server.pid, status, json.loads(body)))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


class DaemonSeries:
    """Starts daemons one after the other, and kills them."""

    def __init__(self, folder, seed):
        self._folder = folder
        self._seed = seed
        self._randomness = random.Random(seed)
        self.server = Server(random.Random(f"answers {seed}"))
        self.kills = 0
        self.starts = []  # seconds from the fork of a daemon until it was ready

    def start_and_kill(self):
        pid, output = self._fork_daemon("flapping")
        killed = []

        def kill(*_):
            os.kill(pid, signal.SIGKILL)
            killed.append(True)

        def set_alarm():
            longest = max([MAX_LIFE_SECONDS, *(MAX_LIFE_STARTS * start for start in self.starts[-1:])])
            signal.setitimer(signal.ITIMER_REAL, self._randomness.uniform(0.001, longest))

        signal.signal(signal.SIGALRM, kill)
        if self._randomness.random() < SHARE_KILLED_IN_START:
            set_alarm()
            self._serve(output, lambda: killed)
        else:
            self._serve(output, lambda: killed, when_ready=set_alarm)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
        os.close(output)
        self.kills += 1
        self._serve_rest()

    def start_and_finish(self):
        pid, output = self._fork_daemon("off")
        until = time.monotonic() + END_TIMEOUT_SECONDS

        def has_ended():
            assert time.monotonic() < until, "the daemon does not end"
            found, status = os.waitpid(pid, os.WNOHANG)
            assert status == 0
            return found

        self._serve(output, has_ended)
        os.close(output)

    def _fork_daemon(self, condition):
        reading, writing = os.pipe()
        number = len(self.starts) + self.kills
        pid = os.fork()
        if pid == 0:
            os.dup2(writing, 1)
            os.close(reading)
            self.server.socket.close()
            random.seed(f"waits {self._seed} {number}")
            with (self._folder / JOURNAL).open("ab", buffering=0) as journal:
                small_daemon.main([str(self._folder), str(self.server.server_port), RECEIVERS, condition], journal)
            os._exit(0)
        os.close(writing)
        self.server.pid = pid
        return pid, reading

    def _serve(self, output, is_over, when_ready=lambda: None):
        forked = time.monotonic()
        watched = [self.server, output]
        while not is_over():
            readable, _, _ = select.select(watched, [], [], 0.005)
            if output in readable:
                watched.remove(output)
                if os.read(output, 100):
                    self.starts.append(time.monotonic() - forked)
                    when_ready()
            if self.server in readable:
                self.server.handle_request()

    def _serve_rest(self):
        # Requests of the killed daemon have arrived, and come before those of the next one.
        while select.select([self.server], [], [], 0)[0]:
            self.server.handle_request()


def check(folder, posts):
    """Return the number of errors by kind."""
    states = saved_states(folder)
    committed = set((folder / JOURNAL).read_text().split())
    arrived = {post.id for post in posts}
    delivered = {id_ for id_, state in states.items() if state == "delivered"}
    unfinished = {id_ for id_, state in states.items() if state not in {"delivered", "merged"}}
    return {
        "missing": len(committed - set(states)) + len(unfinished) + len(delivered ^ arrived),
        "copies": sum(1 for _ in unexplained_copies(posts)),
        "disorder": sum(sum(1 for _ in disorder(of_group)) for of_group in by_group(posts)),
        "ends": sum(sum(1 for _ in wrong_ends(of_group)) for of_group in by_group(posts)),
    }


def unexplained_copies(posts):
    """Yield copies that differ, and copies of notifications answered 200 that were not in flight at a kill."""
    last_of = {(post.receiver, post.pid): post for post in posts}
    before = {}
    for post in posts:
        for earlier in before.setdefault(post.id, []):
            was_in_flight = last_of[earlier.receiver, earlier.pid] is earlier and earlier.pid != post.pid
            if earlier.document != post.document or (earlier.status == 200 and not was_in_flight):
                yield post
        before[post.id].append(post)


def by_group(posts):
    def group_of(post):
        return (post.receiver, post.document["group"])

    return [list(of_group) for _, of_group in groupby(sorted(posts, key=group_of), group_of)]  # stable


def disorder(posts):
    """Yield posts that came after a newer one of their group, copies included, or with an older state of an alert."""
    for earlier, later in pairwise(posts):
        if earlier.document["created"] > later.document["created"]:
            yield later
    newest = {}
    for post in posts:
        for alert, state, fired in post.document["alerts"]:
            age = (fired, state == "resolved")
            if age < newest.setdefault(alert, age):
                yield post
            newest[alert] = age


def wrong_ends(posts):
    """Yield alerts whose last state is firing, and firings with a resolved state in more than one notification."""
    notifications = {post.id: post.document for post in posts}  # each once
    last, ends = {}, Counter()
    for document in notifications.values():
        for alert, state, fired in document["alerts"]:
            last[alert] = state
            ends[alert, fired] += state == "resolved"
    yield from (alert for alert, state in last.items() if state != "resolved")
    yield from (firing for firing, count in ends.items() if count > 1)


def saved_states(folder):
    with contextlib.closing(sqlite3.connect(folder / "state.sqlite3")) as connection:
        return dict(connection.execute("SELECT id, state FROM notifications"))


def main():
    """Kill daemons, let the last one end, and print the counts."""
    folder, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    logging.getLogger("small_daemon").setLevel(logging.ERROR)  # repeated attempts are normal here
    series = DaemonSeries(folder, seed)
    for _ in range(kills):
        series.start_and_kill()
    series.start_and_finish()
    posts = series.server.posts
    starts = sorted(series.starts)
    figures = {
        "kills": series.kills,
        "ready": len(starts) - 1,
        "notifications": len(saved_states(folder)),
        "arrived": len({post.id for post in posts}),
        "repeated": len(posts) - len({post.id for post in posts}),
        "refused": sum(post.status != 200 for post in posts),
        "start_seconds": {"median": starts[len(starts) // 2], "p99": starts[-1 - len(starts) // 100]},
        **check(folder, posts),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
