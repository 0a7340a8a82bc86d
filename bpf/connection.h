/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Records that the programs hand to the daemon, first of all one TCP connection:
 * live (from the pass) or ended (from the ledger). watchdog/kernel/layout.py
 * declares the same layout for numpy; the compiler compares the two before
 * anything is loaded. Times are CLOCK_BOOTTIME in ns.
 */
#pragma once

#define COMM_LEN 16
#define EXE_LEN 32
#define CGROUP_NAME_LEN 256 /* NAME_MAX and a NUL */
#define EXECUTABLE_PATH_LEN 4096 /* PATH_MAX */

/* Directions, as in watchdog/measure/catalogue.py. */
enum direction {
	DIRECTION_UNKNOWN = 0, /* older than the programs */
	DIRECTION_OUT = 1,
	DIRECTION_IN = 2,
};

/* Bits of connection.flags. */
enum connection_flag {
	FLAG_CONNECT = 1, /* the attempt to connect out was seen */
	FLAG_ACCEPTED = 2, /* a process accepted the connection */
	FLAG_FAILED = 4, /* not established, or outbound and reset before the peer sent a byte */
	FLAG_CORRECTION = 8, /* ended before: adds one reset to the final record, and nothing else */
	FLAG_SOCKMAP = 16, /* was in a sockmap: bytes can have passed from socket to socket, past the counters */
	FLAG_UNSENT = 32, /* failed before its first packet, on the way to a peer's address */
	FLAG_DENIED = 64, /* failed before its first packet, denied by a policy of this host */
	FLAG_APART = 128, /* the entry is in `apart_sockets`: only the walk over files reports the connection */
};

/* Indices into the map `losses`. */
enum loss {
	LOSS_LEDGER_FULL = 0, /* connections added to `sums`: totals exact, details lost */
	LOSS_SUMS_FULL = 1, /* connections that fit into neither map: lost */
	LOSS_STORAGE = 2, /* events of sockets without memory for an entry, except those counted in `sums` */
	LOSS_RESPONSES = 3, /* latencies that did not fit into `responses` */
	LOSS_DATAGRAMS = 4, /* UDP messages of processes that did not fit into `datagrams` */
	LOSS_COUNT = 5,
};

/* A process at the time when it became the owner. All zero: unknown. */
struct owner {
	u64 start_ns; /* task start_boottime: with tgid, unique for one boot */
	u64 cgroup_id; /* cgroup v2 inode; 0 on hosts without it */
	u32 tgid;
	u32 uid;
	char comm[COMM_LEN]; /* of the main thread */
	char exe[EXE_LEN]; /* file name of the executable, truncated */
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
	u32 send_queue; /* bytes not yet acknowledged; listeners: limit of the accept queue */
	u32 receive_queue; /* bytes not yet read; listeners: length of the accept queue */
	u32 drops; /* listeners: connections dropped at the full accept queue; wraps */
	u32 half_open; /* listeners: handshakes that wait for the peer's last ACK */
	u16 local_port; /* host order */
	u16 remote_port; /* host order */
	u16 error; /* sk_err at the end, a positive errno */
	u16 incarnation; /* how often this socket was connected again */
	u8 family; /* AF_INET 2, AF_INET6 10 */
	u8 state; /* include/net/tcp_states.h */
	u8 direction;
	u8 flags;
	u8 local[16]; /* IPv4 as ::ffff:a.b.c.d */
	u8 remote[16];
	struct owner owner;
};

/* Key and value of `sums`: per process, the totals of the connections that did not fit into the ledger. */
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
	u64 lost_connections; /* followed no further than this: no memory for an entry */
	struct owner owner;
};

/* Key and value of `reset_peers`: resets in answer to segments of a peer that belong to no connection. */
struct reset_peer_key {
	u8 remote[16]; /* IPv4 as ::ffff:a.b.c.d */
	u32 netns;
	u32 direction; /* in: it tried to connect; unknown: a segment without SYN */
};

struct reset_peer {
	u64 created_ns;
	u64 resets_sent;
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

/* A record of `cgroups`: a control group (v2) that was made. */
struct cgroup_record {
	u64 id; /* inode number */
	u64 parent_id; /* 1: the root of all groups */
	u32 uid; /* effective user who made it */
	u32 pad;
	char name[CGROUP_NAME_LEN];
};

/* The file that a process executes. */
struct executable {
	u64 start_ns; /* of the process, as in struct owner */
	u64 inode;
	u32 tgid;
	u32 device; /* s_dev: major << 20 | minor */
	u32 uid; /* owner of the file */
	u32 folder_uid; /* owner of the nearest folder that another user than root can change, else of the last one read */
	u16 mode; /* of the file */
	u16 folder_mode;
	u32 pad;
	char path
		[EXECUTABLE_PATH_LEN]; /* in the mount namespace of the process; " (deleted)" at the end; "": too long */
};

_Static_assert(sizeof(struct owner) == 72, "struct owner has no hidden padding");
_Static_assert(sizeof(struct connection) == 208, "struct connection has no hidden padding");
_Static_assert(sizeof(struct sums_key) == 24, "struct sums_key has no hidden padding");
_Static_assert(sizeof(struct reset_peer_key) == 24, "struct reset_peer_key has no hidden padding");
_Static_assert(sizeof(struct reset_peer) == 16, "struct reset_peer has no hidden padding");
_Static_assert(sizeof(struct cgroup_record) == 280, "struct cgroup_record has no hidden padding");
_Static_assert(sizeof(struct response) == 16, "struct response has no hidden padding");
_Static_assert(sizeof(struct datagrams_key) == 24, "struct datagrams_key has no hidden padding");
_Static_assert(sizeof(struct datagrams) == 104, "struct datagrams has no hidden padding");
_Static_assert(sizeof(struct sums) == 176, "struct sums has no hidden padding");
_Static_assert(sizeof(struct executable) == 40 + EXECUTABLE_PATH_LEN, "struct executable has no hidden padding");
