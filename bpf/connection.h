/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The row: one TCP connection, alive (from the pass) or ended (from the ledger).
 * watchdog/kernel/layout.py declares the same layout for numpy; the loader
 * compares the two before it loads anything. Times are CLOCK_BOOTTIME in ns.
 */
#pragma once

#define COMM_LEN 16
#define EXE_LEN 32

/* Directions, as in watchdog/measure/catalogue.py. */
enum direction {
	DIRECTION_UNKNOWN = 0, /* older than the programs */
	DIRECTION_OUT = 1,
	DIRECTION_IN = 2,
};

/* Bits of connection.flags. */
enum flags {
	FLAG_CONNECT = 1, /* the attempt to connect out was seen */
	FLAG_ACCEPTED = 2, /* a process has taken it from the accept queue */
	FLAG_FAILED = 4, /* not established, or out and reset before the peer sent a byte */
	FLAG_AMENDS = 8, /* it ended before: this adds a reset to what its final row said, and nothing else */
};

/* Indices into the map `losses`. */
enum loss {
	LOSS_LEDGER_FULL = 0, /* folded into `sums`: totals exact, detail lost */
	LOSS_SUMS_FULL = 1, /* neither map had room: lost */
	LOSS_STORAGE = 2, /* no memory to follow a socket */
	LOSS_RESPONSES = 3, /* answers whose latency found no room */
	LOSS_DATAGRAMS = 4, /* UDP messages whose process found no room */
	LOSS_KINDS = 5,
};

/* A process, as it was when it took the socket. All zero: not known. */
struct owner {
	u64 start_ns; /* task start_boottime: with tgid, unique for one boot */
	u64 cgroup_id; /* cgroup v2 inode; 0 on hosts without it */
	u32 tgid;
	u32 uid;
	char comm[COMM_LEN]; /* of the main thread */
	char exe[EXE_LEN]; /* file name of the executable, cut */
};

struct connection {
	u64 cookie; /* socket cookie, unique for one boot */
	u64 born_ns; /* SYN_SENT or SYN_RECV; 0: older than the programs */
	u64 established_ns; /* 0: never, or not seen */
	u64 ended_ns; /* 0: alive */
	u64 bytes_sent; /* payload, retransmissions not counted again */
	u64 bytes_received; /* payload taken in order, without the FIN */
	u32 packets_sent; /* segments; wraps */
	u32 packets_received; /* segments; wraps */
	u32 retransmits; /* segments; wraps */
	u32 resets_sent;
	u32 resets_received;
	u32 srtt_us;
	u32 netns; /* inode number */
	u32 send_queue; /* bytes not yet acknowledged; listeners: most that may wait for accept */
	u32 receive_queue; /* bytes not yet read; listeners: how many wait for accept */
	u32 drops; /* listeners: connections that found no room; wraps */
	u32 pad;
	u16 local_port; /* host order */
	u16 remote_port; /* host order */
	u16 error; /* sk_err at the end, a positive errno */
	u16 life; /* how often this socket has connected again */
	u8 family; /* AF_INET 2, AF_INET6 10 */
	u8 state; /* include/net/tcp_states.h */
	u8 direction;
	u8 flags;
	u8 local[16]; /* IPv4 as ::ffff:a.b.c.d */
	u8 remote[16];
	struct owner owner;
};

/* Key and value of `sums`: what connections that found no room in the ledger added up to, for each process. */
struct sums_key {
	u64 start_ns;
	u32 tgid;
	u32 netns;
	u32 direction;
	u32 pad;
};

struct sums {
	u64 connects;
	u64 established;
	u64 accepts;
	u64 closes;
	u64 connect_failures;
	u64 resets_sent;
	u64 resets_received;
	u64 bytes_sent;
	u64 bytes_received;
	u64 packets_sent;
	u64 packets_received;
	u64 retransmits;
	struct owner owner;
};

/* A record of `responses`. */
struct response {
	u64 cookie;
	u64 latency_ns; /* last send to first receive after it */
};

/* Key and value of `datagrams`: UDP of one process. */
struct datagrams_key {
	u64 start_ns;
	u32 tgid;
	u32 netns;
	u32 family; /* AF_INET 2, AF_INET6 10 */
	u32 pad;
};

struct datagrams {
	u64 bytes_sent;
	u64 bytes_received;
	u64 datagrams_sent;
	u64 datagrams_received;
	struct owner owner;
};

_Static_assert(sizeof(struct owner) == 72, "struct owner has no hidden padding");
_Static_assert(sizeof(struct connection) == 208, "struct connection has no hidden padding");
_Static_assert(sizeof(struct sums_key) == 24, "struct sums_key has no hidden padding");
_Static_assert(sizeof(struct response) == 16, "struct response has no hidden padding");
_Static_assert(sizeof(struct datagrams_key) == 24, "struct datagrams_key has no hidden padding");
_Static_assert(sizeof(struct datagrams) == 104, "struct datagrams has no hidden padding");
_Static_assert(sizeof(struct sums) == 168, "struct sums has no hidden padding");
