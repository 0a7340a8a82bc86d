"""Shipped rules on a real host: scans and a new listener in network namespaces of their own, and a busy proxy."""

import json
import subprocess
import sys

# Judges as the daemon does, while children act. Each child takes the name in its first argument, in a namespace where
# only loopback exists.
WATCHED = """
import json, subprocess, sys, time
from dataclasses import replace
from watchdog.clock import SECOND_NS, SystemClock
from watchdog.kernel import live_sockets
from watchdog.kernel.startup import start_collector
from watchdog.measure.meter import Meter
from watchdog.resources import shipped_rules_folder
from watchdog.rules.engine.engine import Engine
from watchdog.rules.language.load import load_rules

live_sockets._ROUND_PAUSES = 0  # a walk over files in each tick: the test does not wait for owners
CHILD = '''
import ctypes, os, socket, sys, threading
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
print(os.getpid(), flush=True)
input()

def attempt(address):
    with socket.socket() as one:
        one.settimeout(5)
        one.connect_ex(address)

def proxy():
    global kept
    front, back = socket.create_server(("127.0.0.1", 8080), backlog=900), socket.create_server(("127.0.0.2", 9090))
    kept = [front, back]
    for number in range(600):
        client = socket.socket()
        client.bind((f"127.1.{number // 200}.{1 + number % 200}", 0))
        client.connect(("127.0.0.1", 8080))
        kept += [client, front.accept()[0], socket.create_connection(("127.0.0.2", 9090)), back.accept()[0]]

def listen():
    global kept
    kept = socket.create_server(("127.0.0.1", 4444))

match sys.argv[1]:
    case "portscanner":
        for port in range(1, 301):
            attempt(("127.0.0.1", port))
    case "sweeper":
        for number in range(300):
            attempt((f"127.0.{number // 250}.{1 + number % 250}", 80))
    case "proxy":
        proxy()
    case "backdoor":
        listen()
print("done", flush=True)
input()
'''
NAMES = ("portscanner", "sweeper", "proxy", "backdoor")
rules = load_rules([shipped_rules_folder()], receivers=None).rules
rules = [replace(rule, novelty=replace(rule.novelty, learn_ns=SECOND_NS)) if rule.novelty else rule for rule in rules]
inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "-"]
children = {
    name: subprocess.Popen([*inside, sys.executable, "-c", CHILD, name], stdin=-1, stdout=-1, text=True)
    for name in NAMES
}
pids = {name: int(child.stdout.readline()) for name, child in children.items()}
collector, meter, engine = start_collector(SystemClock()), Meter(), Engine(rules)
engine.evaluate(meter.advance(collector.read(), 0), [])
found = {}

def tick():
    snapshot = meter.advance(collector.read(), 0)
    for verdict in engine.evaluate(snapshot, []):
        labels = dict(verdict.labels)
        if verdict.breached is not None and labels.get("process") in NAMES:
            _, contributors = engine.find_contributors(snapshot, verdict.rule.id, verdict.labels)
            processes = [one.pid for one in contributors.processes]
            key = verdict.rule.id, labels["process"], labels.get("local_port")
            found.setdefault(key, [verdict.value, processes])

for _ in range(8):
    time.sleep(0.25)
    tick()
for name in NAMES:
    children[name].stdin.write("\\n")
    children[name].stdin.flush()
    assert children[name].stdout.readline() == "done\\n"
    time.sleep(0.2)
    tick()
    tick()
collector.close()
for child in children.values():
    child.communicate("\\n")
print(json.dumps({"found": [[*key, *value] for key, value in found.items()], "pids": pids}))
"""


def test_scans_and_a_new_listener_are_found_with_their_process_and_a_busy_proxy_is_not():
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    pids = result["pids"]
    found = {(rule, process, port): rest for rule, process, port, *rest in result["found"]}

    scans = {key: rest for key, rest in found.items() if key[0] in {"port-scan", "address-scan"}}
    assert scans == {
        ("port-scan", "portscanner", None): [300, [pids["portscanner"]]],
        ("address-scan", "sweeper", None): [300, [pids["sweeper"]]],
    }
    listeners = {key[1:]: rest[1] for key, rest in found.items() if key[0] == "new-listener"}
    assert listeners == {
        ("backdoor", "4444"): [pids["backdoor"]],
        ("proxy", "8080"): [pids["proxy"]],
        ("proxy", "9090"): [pids["proxy"]],
    }
