"""The obvious program, for comparison: the usual first program with bcc, as good as its method allows.

A hash map per direction, keyed by addresses, ports, pid and command, is updated at every send and receive. Every second
user space reads it with items() and empties it with clear(). It attaches to raw tracepoints, the cheapest hooks, and
compiles against the watchdog's header tree, because hosts often have no kernel headers.

Prints "ready"; at SIGTERM one JSON object with its counts. IPv4 only, as usual for such programs.
"""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from bcc import BPF

from watchdog.kernel.kernel_headers import write_header_tree

SOURCE = r"""
#include <kernel_types.h>

struct key {
	u32 local, remote;
	u16 local_port, remote_port;
	u32 pid;
	char command[16];
};
struct value {
	u64 messages, bytes;
};
BPF_HASH(sent, struct key, struct value, 131072);
BPF_HASH(received, struct key, struct value, 131072);

static __always_inline int fill(struct key *key, struct sock *sk)
{
	u16 family = 0;

	bpf_probe_read_kernel(&family, sizeof(family), &sk->__sk_common.skc_family);
	if (family != 2)
		return 0;
	bpf_probe_read_kernel(&key->local, 4, &sk->__sk_common.skc_rcv_saddr);
	bpf_probe_read_kernel(&key->remote, 4, &sk->__sk_common.skc_daddr);
	bpf_probe_read_kernel(&key->local_port, 2, &((struct inet_sock *)sk)->inet_sport);
	bpf_probe_read_kernel(&key->remote_port, 2, &sk->__sk_common.skc_dport);
	key->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(key->command, sizeof(key->command));
	return 1;
}

RAW_TRACEPOINT_PROBE(sock_send_length)
{
	struct key key = {};
	struct value zero = {}, *value;
	int length = (int)ctx->args[1];

	if (length <= 0 || !fill(&key, (struct sock *)ctx->args[0]))
		return 0;
	value = sent.lookup_or_try_init(&key, &zero);
	if (value) {
		__sync_fetch_and_add(&value->messages, 1);
		__sync_fetch_and_add(&value->bytes, length);
	}
	return 0;
}

RAW_TRACEPOINT_PROBE(sock_recv_length)
{
	struct key key = {};
	struct value zero = {}, *value;
	int length = (int)ctx->args[1];

	if (length <= 0 || !fill(&key, (struct sock *)ctx->args[0]))
		return 0;
	value = received.lookup_or_try_init(&key, &zero);
	if (value) {
		__sync_fetch_and_add(&value->messages, 1);
		__sync_fetch_and_add(&value->bytes, length);
	}
	return 0;
}
"""


def load():
    """Return the compiled module, with its programs attached."""
    folder = tempfile.TemporaryDirectory(prefix="obvious-")
    write_header_tree(Path(folder.name))
    os.environ["BCC_KERNEL_SOURCE"] = folder.name
    os.chdir(folder.name)  # bcc has the current folder on its include path
    module = BPF(text=SOURCE)
    os.chdir("/")
    folder.cleanup()
    return module


def collect(table, process, counted):
    """Add the connections of one process in `table` to `counted`, and empty the table."""
    for key, value in table.items():
        if process is None or bytes(key.command) == process:
            counted["connections"] += 1
            counted["messages"] += value.messages
            counted["bytes"] += value.bytes
    table.clear()


def main():
    process = sys.argv[1].encode() if len(sys.argv) > 1 else None
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    module = load()
    counted = {way: {"connections": 0, "messages": 0, "bytes": 0} for way in ("sent", "received")}
    print("ready", flush=True)
    while not stopped:
        time.sleep(1)  # a signal without an exception does not end it: at most a second late
        for way, counts in counted.items():
            collect(module[way], process, counts)
    print(json.dumps(counted), flush=True)


if __name__ == "__main__":
    main()
