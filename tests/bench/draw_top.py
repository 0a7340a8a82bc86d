"""Draw the pictures of `top` in docs/operating.md: draw_top.py [FOLDER], by default docs/images.

The real command runs on a terminal and asks the real control socket; the host behind it is made up.
"""

from __future__ import annotations

import logging
import re
import sys
import tempfile
import threading
import time
from dataclasses import replace
from html import escape
from itertools import groupby
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sample_period import Period, make_connections

from terminal_screen import TerminalScreen
from watchdog.control.alert_handlers import ActiveAlert
from watchdog.control.listener import Listener
from watchdog.control.server import ControlServer
from watchdog.control.traffic_handler import traffic_handlers
from watchdog.measure.traffic_rows import keep_columns

ROOT = Path(__file__).resolve().parents[2]
ENTER = "\r"
DOWN, RIGHT = "\x1b[B", "\x1b[C"
CELL_WIDTH, CELL_HEIGHT, FONT_SIZE = 8, 17, 13
COLOURS = {"default": "#d8dee4", "red": "#ff7b72", "brown": "#e3b341"}
BACKGROUND = "#10151b"
WALL = 1_795_917_800  # 2026-11-29
# Name, pid, peers, bytes a second and connection, connects a second that fail.
PROCESSES = (
    (b"api", 1120, 40, 198_000, 0),
    (b"nginx", 914, 60, 5_400, 0),
    (b"crawler", 16_622, 6, 68_000, 58),
    (b"\x1b[2J\x1b[31mpwn", 31_337, 2, 9_100, 3),
    ("バックアップ".encode()[:15], 2_204, 1, 2_400_000, 0),
    (b"postgres", 777, 8, 31_000, 0),
    (b"Web Content", 5_002, 12, 700, 0),
)


class MadeUpHost:
    """Snapshots of the same connections, whose traffic moves up and down."""

    def __init__(self):
        self.snapshot = None
        self._period = Period(self)
        self._random = np.random.default_rng(7)
        self._lock = threading.Lock()
        self._due = 0.0
        self._live = [self._connections(number, *process) for number, process in enumerate(PROCESSES)]
        for _ in range(29):
            self._tick()

    def add(self, _, snapshot):
        self.snapshot = replace(keep_columns(snapshot), wall=WALL + self._period.second)

    def newest(self):
        """Return the newest snapshot; a further tick each 100 ms."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + 0.1
            self._tick()
        return self.snapshot

    @staticmethod
    def _connections(number, name, pid, count, *_):
        rows = make_connections(count, 1 + 1_000 * number, srtt_us=900 * (number + 1), send_queue=number * 1_448)
        rows["owner"]["comm"], rows["owner"]["tgid"] = name, pid
        rows["local"][:, 10:12], rows["local"][:, 12:] = 0xFF, (10, 0, 1, 5)
        rows["local_port"] = 40_000 + np.arange(count) * 7
        rows["remote_port"] = 5_432 if name == b"api" else 443
        rows["remote"][:, 10:12], rows["remote"][:, 12] = 0xFF, 10
        rows["remote"][:, 15] = 1 + np.arange(count) % 40
        return rows

    def _tick(self):
        closed = []
        for number, (rows, (_, _, count, rate, failures)) in enumerate(zip(self._live, PROCESSES, strict=True)):
            level = 1 + 0.6 * np.sin((self._period.second + 5 * number) / (3 + number))
            rows["bytes_sent"] += self._random.poisson(max(level, 0.1) * rate, count).astype(np.uint64)
            rows["bytes_received"] += self._random.poisson(max(level, 0.1) * rate / 3, count).astype(np.uint64)
            rows["packets_received"] += 1
            failed = rows[:1].repeat(failures)
            failed["cookie"] = 10**9 * (number + 1) + self._period.second * 1_000 + np.arange(failures)
            failed["born_ns"] = failed["ended_ns"] = self._period.second * 10**9
            failed["state"], failed["error"], failed["bytes_sent"], failed["bytes_received"] = 7, 111, 0, 0
            failed["flags"] = 1 | 4  # connect, failed
            closed.append(failed)
        self._period.tick(live=self._live, closed=closed)


def alerts():
    """Return a firing alert of the storm."""
    return [
        ActiveAlert(
            fingerprint="36a6f54b4984c64d", rule="outbound-connection-storm", state="firing", severity="critical",
            labels={"process": "crawler", "unit": "crawler.service"}, since=time.time() - 430, fired=None, value=612.0,
            limit=500.0, value_text="612/s", limit_text="500/s", share=1.2, summary="", reason="", timers=(),
            receivers=(),
        )
    ]  # fmt: skip


def look(cell):
    """Return the style of a cell, given with its column; wide characters have a cell without text beside them."""
    _, character = cell
    return character.fg, character.bold, character.reverse, not character.data or not character.data.isascii()


def svg(screen, title):
    """Return the cells of a screen as an SVG."""
    width, height = screen.columns * CELL_WIDTH + 16, screen.lines * CELL_HEIGHT + 16
    boxes, texts = [], []
    for line in range(screen.lines):
        cells = [(column, screen.buffer[line][column]) for column in range(screen.columns)]
        for (foreground, is_bold, is_reverse, _), found in groupby(cells, look):
            run = list(found)
            text, x, y = "".join(cell.data for _, cell in run), 8 + run[0][0] * CELL_WIDTH, 8 + line * CELL_HEIGHT
            colour = COLOURS.get(foreground, COLOURS["default"])
            if is_reverse:
                boxes.append(
                    f'<rect x="{x}" y="{y}" width="{len(run) * CELL_WIDTH}" height="{CELL_HEIGHT}" fill="{colour}"/>'
                )
            if text.strip():
                weight = ' font-weight="bold"' if is_bold else ""
                texts.append(
                    f'<text x="{x}" y="{y + 13}" textLength="{len(run) * CELL_WIDTH}" xml:space="preserve"'
                    f' fill="{BACKGROUND if is_reverse else colour}"{weight}>{escape(text)}</text>'
                )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' font-family="monospace" font-size="{FONT_SIZE}" role="img" aria-label="{escape(title)}">\n'
        f'<rect width="{width}" height="{height}" rx="6" fill="{BACKGROUND}"/>\n'
        + "\n".join(boxes + texts)
        + "\n</svg>\n"
    )


def pictures(folder):
    """Yield name and SVG of each picture; the socket is in `folder`."""
    host = MadeUpHost()
    handlers = traffic_handlers(host.newest, alerts, lambda: "web-1", lambda: 1.0)
    path = Path(folder, "control.sock")
    server = ControlServer(Listener.at(path), handlers, logging.getLogger("draw"))
    server.start()
    command = [Path(sys.executable).with_name("bpf-watchdog"), "top", "--control", path]
    try:
        with TerminalScreen(command, 80, 24) as top:
            top.wait("crawler")
            top.press(RIGHT * 5)
            top.wait("by connects")
            top.press(DOWN)
            top.wait(lambda lines: lines[6].startswith("crawler"))
            top.wait(lambda lines: any(top.screen.buffer[number][0].reverse for number in range(6, len(lines))))
            yield "top-80", svg(top.screen, "top on 80 columns: processes by connects, an alert above them")
        with TerminalScreen(command, 200, 24) as top:
            top.wait(lambda lines: any(re.search(r"nginx .*[▁-█]{30}$", line) for line in lines))
            yield "top-200", svg(top.screen, "top on 200 columns: processes by bytes with their history")
            top.press("/process=api" + ENTER)
            top.wait(lambda lines: " 1 row " in "".join(lines))
            top.press(DOWN + ENTER)
            top.wait("send_queue")
            top.wait("command unknown")
            top.wait(lambda lines: any(re.search(r"[▁-█]{20}$", line) for line in lines))
            yield (
                "top-process",
                svg(top.screen, "top: the sockets of one process with states, queues and round-trip times"),
            )
    finally:
        server.stop()


def main():
    """Write the pictures."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    with tempfile.TemporaryDirectory() as folder:
        for name, picture in pictures(folder):
            (target / f"{name}.svg").write_text(picture)


if __name__ == "__main__":
    main()
