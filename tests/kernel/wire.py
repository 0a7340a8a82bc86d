"""A connection over a simulated wire with delay and loss: usage: wire.py DELAY_SECONDS LOSE_EVERY.

Two network namespaces with a TUN device each, and a thread that carries packets between them: exact, and without netem.
Sends bytes both ways, prints the values of getsockopt(TCP_INFO) of both ends, and ends with its standard input.
"""

import collections
import ctypes
import fcntl
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
UNAVAILABLE = 77
REQUEST, ANSWER = 200_003, 50_021
FIRST, SECOND = "192.0.2.1", "192.0.2.2"
LARGE = 500  # bytes: a segment with payload; the handshake and acknowledgements are never lost


def end_of_wire(own, other):
    """Enter a new network namespace and return its end of the wire."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"wire", IFF_TUN | IFF_NO_PI))
    for command in (f"address add {own} peer {other} dev wire", "link set wire up"):
        subprocess.run(["ip", *command.split()], check=True)
    return tun


def carry(ends, delay, lose_every):
    """Carry packets from each end to the other, in order, each after the delay; lose every n-th with payload."""
    waiting = collections.deque()
    seen = 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, to, packet = waiting.popleft()
            os.write(to, packet)
        timeout = max(0, waiting[0][0] - now) if waiting else None
        for end in select.select(ends, [], [], timeout)[0]:
            packet = os.read(end, 65536)
            seen += len(packet) > LARGE
            if lose_every and len(packet) > LARGE and seen % lose_every == 0:
                continue
            waiting.append((time.monotonic() + delay, ends[1 - ends.index(end)], packet))


def information(end):
    """Return the numbers of struct tcp_info (include/uapi/linux/tcp.h) that the watchdog also shows."""
    raw = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    (rtt,) = struct.unpack_from("I", raw, 68)
    (retransmits,) = struct.unpack_from("I", raw, 100)
    (received,) = struct.unpack_from("Q", raw, 128)
    segments_out, segments_in = struct.unpack_from("II", raw, 136)
    sent, sent_again = struct.unpack_from("QQ", raw, 200)
    return {
        "rtt_us": rtt,
        "retransmits": retransmits,
        "bytes_received": received,
        "packets_sent": segments_out,
        "packets_received": segments_in,
        "bytes_sent": sent - sent_again,
    }


def settled(ends):
    """Return the values of both ends when no packet is in transit."""
    numbers = None
    while numbers != (numbers := [information(end) for end in ends]):
        time.sleep(0.5)
    return numbers


def main():
    delay, lose_every = float(sys.argv[1]), int(sys.argv[2])
    try:
        tuns = [end_of_wire(FIRST, SECOND)]
        client = socket.socket()
        tuns.append(end_of_wire(SECOND, FIRST))
    except OSError as error:
        print(f"no TUN device: {error}", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    server = socket.create_server((SECOND, 0))
    threading.Thread(target=carry, args=(tuns, delay, lose_every), daemon=True).start()
    client.connect(server.getsockname())
    accepted = server.accept()[0]
    for sender, receiver, size in ((client, accepted, REQUEST), (accepted, client, ANSWER)):
        sending = threading.Thread(target=sender.sendall, args=(bytes(size),))
        sending.start()
        left = size
        while left:
            left -= len(receiver.recv(left))
        sending.join()
    out, incoming = settled((client, accepted))
    print(json.dumps({"port": server.getsockname()[1], "out": out, "in": incoming}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
