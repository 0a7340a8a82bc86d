"""Sockets that no process has: TIME_WAIT, half-open handshakes, and the local ports that they hold."""

import sys

# In a namespace of its own: 53 connections closed by their client, 3 to a port that connects do not get.
WAITING = """
import json, socket, sys, time
from watchdog.kernel.host_sockets import HostSocketsReader
server = socket.create_server(("127.0.0.1", 0), backlog=64)
def wait(local=0):
    client = socket.socket()
    client.bind(("127.0.0.1", local))
    client.connect(server.getsockname())
    port, accepted = client.getsockname()[1], server.accept()[0]
    client.close()
    accepted.recv(1)
    accepted.close()
    return port
ports = {wait() for _ in range(53)}
for local in (3001, 3002, 3003):
    wait(local)
reader = HostSocketsReader()
end = time.monotonic() + 60
found = reader.read()
while found.time_wait_ports is None and time.monotonic() < end:
    found = reader.read()
print(json.dumps([found.time_wait, found.orphans, sorted(ports) == found.time_wait_ports.tolist(), len(ports)]))
"""
FLOOD = """
import json, socket, struct, subprocess, sys
def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
server = socket.create_server(("10.9.0.1", 0), backlog=512)
port = server.getsockname()[1]
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for number in range(79):  # addresses that nobody has: no host answers the SYN-ACK
    source, target = socket.inet_aton(f"198.51.100.{number + 1}"), socket.inet_aton("10.9.0.1")
    tcp = struct.pack("!HHIIBBHHH", 2000, port, 1, 0, 80, 2, 1000, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, 6, len(tcp))
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    raw.sendto(struct.pack("!BBHHHBBH4s4s", 69, 0, 40, number, 0, 64, 6, 0, source, target) + tcp, ("10.9.0.1", 0))
shown = subprocess.run(["ss", "-tanH", "state", "syn-recv"], capture_output=True, text=True, check=True).stdout
print(json.dumps({"port": port, "half_open": len(shown.splitlines())}), flush=True)
sys.stdin.readline()
"""


def test_time_wait_and_its_ports_are_those_of_the_namespace(namespace):
    waiting, orphans, same_ports, count = namespace.run(sys.executable, "-c", WAITING).receive()
    assert (waiting, same_ports, count) == (53 + 3, True, 53)
    assert orphans >= 0


def test_half_open_handshakes_count_for_their_listener(reader, namespace):
    namespace.set("ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
    namespace.set("ip", "addr", "add", "10.9.0.1/24", "dev", "left")
    namespace.set("ip", "link", "set", "right", "up")
    namespace.set("ip", "link", "set", "left", "up")
    # A next hop that takes packets and answers none.
    namespace.set("ip", "neigh", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:99", "dev", "left")
    namespace.set("ip", "route", "add", "198.51.100.0/24", "via", "10.9.0.2")
    for key in ("all", "default", "lo", "left"):
        namespace.set("sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{key}/rp_filter")
    flood = namespace.run("python3", "-c", FLOOD)
    facts = flood.receive()
    listener = reader.by_port(facts["port"], "LISTEN")

    assert facts["half_open"] == listener["half_open"] == 79
    assert listener["process"] == "python3"
