"""Readings without the idle sockets: gauges, bytes and owners stay exact while connections come, speak, rest and go."""

import json
import subprocess
import sys

import pytest

# Reads as the daemon does and checks each tick against the connections that this process has.
CHECKED = """
import ctypes, json, os, random, socket, sys, time
import numpy as np
from watchdog.clock import SystemClock
from watchdog.kernel import live_sockets
from watchdog.kernel.startup import start_collector
from watchdog.measure.catalogue import DIRECTIONS, TCP_STATES
from watchdog.measure.meter import Meter

live_sockets._ROUND_PAUSES = 0  # a walk over files in each tick
chance = random.Random(sys.argv[1])
clock = SystemClock()
collector, meter = start_collector(clock), Meter()
meter.advance(collector.read(), 0)
server = socket.create_server(("127.0.0.1", 0), backlog=1000)
port = server.getsockname()[1]
pairs, waiting, unread, problems = [], [], {}, []
sent = moved = 0

def check(tick):
    global sent
    reading = collector.read()
    snapshot = meter.advance(reading, 0)
    codes, names = snapshot.dimensions, snapshot.names
    at_port = (codes["local_port"] == port) | (codes["remote_port"] == port)
    state = codes["state"]
    outbound = at_port & (codes["direction"] == DIRECTIONS.index("out")) & (snapshot.metrics["open"] > 0)
    found = {
        "open": int(snapshot.metrics["open"][at_port & (state == TCP_STATES.index("ESTABLISHED"))].sum()),
        "listeners": int(snapshot.metrics["listeners"][at_port].sum()),
        "waiting": round(float(np.nansum(snapshot.metrics["accept_queue"][at_port])) * 1001),
        "unread": int(snapshot.metrics["receive_queue"][at_port].sum()),
        "sent": int(snapshot.metrics["bytes_sent"][at_port].sum()),
        "names": sorted({names.text("process", int(code)) for code in codes["process"][outbound]}),
    }
    right = {
        "open": 2 * len(pairs) + 2 * len(waiting),
        "listeners": 1,
        "waiting": len(waiting),
        "unread": sum(unread.values()),
        "sent": sent,
        "names": [name] if pairs or waiting else [],
    }
    sent = 0
    if found != right:
        problems.append([tick, found, right])
    return len(reading.live[(reading.live["local_port"] == port) | (reading.live["remote_port"] == port)])

name = open("/proc/self/comm").read().strip()
for tick in range(40):
    for _ in range(chance.randrange(20)):
        match chance.randrange(6):
            case 0:
                waiting.append(socket.create_connection(("127.0.0.1", port)))
            case 1 if waiting:
                pairs.append((waiting.pop(0), server.accept()[0]))
            case 2 | 3 if pairs:
                client, accepted = chance.choice(pairs)
                client.sendall(b"x" * 100)
                sent += 100
                unread[accepted] = unread.get(accepted, 0) + 100
            case 4 if unread:
                accepted = chance.choice(list(unread))
                accepted.recv(unread.pop(accepted), socket.MSG_WAITALL)
            case 5 if pairs:
                client, accepted = pairs.pop(chance.randrange(len(pairs)))
                count = unread.pop(accepted, 0)
                if count:
                    accepted.recv(count, socket.MSG_WAITALL)
                # No TIME_WAIT and no FIN_WAIT2: both ends are gone with a reset.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\\1\\0\\0\\0\\0\\0\\0\\0")
                client.close()
                accepted.close()
    if tick == 20:
        name = "renamed"
        ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)
    time.sleep(0.02)
    check(tick)
pairs += [(client, server.accept()[0]) for client in waiting]
waiting.clear()
check("accepted")
idle = [check("idle") for _ in range(5)]
print(json.dumps({"problems": problems, "pairs": len(pairs), "idle": idle}))
collector.close()
"""


@pytest.mark.parametrize("seed", [pytest.param("1", marks=pytest.mark.everywhere), "2"])
def test_each_tick_is_exact_although_idle_sockets_are_not_read(seed):
    done = subprocess.run([sys.executable, "-c", CHECKED, seed], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)

    assert result["problems"] == []
    assert result["pairs"] > 2
    assert result["idle"] == [0] * 5


# A listener that closes, its port again in use, a socket that listens a second time.
LISTENERS = """
import json, socket
from watchdog.clock import SystemClock
from watchdog.kernel.startup import start_collector
from watchdog.measure.catalogue import TCP_STATES
from watchdog.measure.meter import Meter
collector, meter = start_collector(SystemClock()), Meter()
meter.advance(collector.read(), 0)
counted = []
def count():
    snapshot = meter.advance(collector.read(), 0)
    codes, metrics = snapshot.dimensions, snapshot.metrics
    at_port = (codes["local_port"] == port) & (codes["state"] == TCP_STATES.index("LISTEN"))
    counted.append([int((at_port & (metrics["accept_queue"] >= 0)).sum()), int(metrics["closes"].sum())])
first = socket.socket()
first.bind(("127.0.0.1", 0))
first.listen(5)
port = first.getsockname()[1]
count()
count()
first.close()
count()
count()
second = socket.socket()
second.bind(("127.0.0.1", port))
second.listen(5)
count()
second.shutdown(socket.SHUT_RDWR)
count()
second.listen(5)
count()
count()
print(json.dumps(counted))
collector.close()
"""


def test_a_listener_leaves_in_the_tick_of_its_end():
    done = subprocess.run([sys.executable, "-c", LISTENERS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [listeners for listeners, _ in json.loads(done.stdout)] == [1, 1, 0, 0, 1, 0, 1, 1]
