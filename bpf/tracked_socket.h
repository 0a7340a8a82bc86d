/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The value kept for each TCP socket, in addition to the counters of the
 * kernel's tcp_sock. Only the programs read it. Times are CLOCK_BOOTTIME in ns.
 */
#pragma once

#include "connection.h"

#define SOCK_STREAM 1 /* include/linux/net.h */
#define IPPROTO_TCP 6
#define IPPROTO_MPTCP 262
#define SK_USER_DATA_PSOCK 4UL /* include/net/sock.h, since Linux 6.0 (commit 2a0133723f9e) */

/* Keep the compiler from moving memory accesses over this line. */
#define barrier() asm volatile("" ::: "memory")

/* include/net/tcp_states.h: part of the user-space ABI. */
enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_FIN_WAIT1 = 4,
	TCP_TIME_WAIT = 6,
	TCP_CLOSE = 7,
	TCP_CLOSE_WAIT = 8,
	TCP_LAST_ACK = 9,
	TCP_LISTEN = 10,
	TCP_NEW_SYN_RECV = 12,
};

/*
 * Return whether the socket has a tcp_sock. The protocol number alone is not enough: raw sockets can have protocol 6
 * too (traceroute -T, scanners), and behind their struct raw_sock is other memory.
 */
static __always_inline bool is_tcp(struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP && sk->sk_type == SOCK_STREAM;
}

/* Return whether the socket is in a sockmap: its messages can then go from socket to socket, past tcp_sock. */
static __always_inline bool is_in_sockmap(struct sock *sk)
{
	return sk->sk_user_data & SK_USER_DATA_PSOCK;
}

/* Source of the recorded owner. A higher rank replaces a lower one. */
enum owner_rank {
	RANK_NONE = 0,
	RANK_LISTENER = 1, /* owner of the listener, inherited by the child socket */
	RANK_ACCEPTOR = 2, /* accepted the connection, and perhaps handed it over: nobody was seen holding it yet */
	RANK_HOLDER = 3, /* holds a file of the socket, or closed it */
	RANK_MAKER = 4, /* holds a file of the socket, and made it by accept or socket */
	RANK_CONNECTOR = 5, /* called connect */
};

/*
 * Values that the daemon has already read of a live connection or listener: add_to_sums() adds only the rest, and the
 * pass leaves out a socket whose values are the same.
 */
struct reported {
	u64 bytes_sent;
	u64 bytes_received;
	u32 packets_sent;
	u32 packets_received;
	u32 retransmits; /* listeners: drops */
	u32 resets_sent;
	u32 resets_received;
	u32 send_position; /* tcp_sock.write_seq; listeners: limit of the accept queue */
	u32 receive_position; /* tcp_sock.copied_seq; listeners: length of the accept queue */
	u32 half_open;
	u32 session; /* iterator session that last reported the socket */
	u16 summary; /* flags of the record, REPORTED_*, direction, state: see get_summary() */
	u16 owner_version;
};

#define REPORTED_ESTABLISHED 0x100
#define REPORTED_SEEN 0x200

/* Return the values of a record, or of a socket, that do not fill a byte each; no bit of REPORTED_*. */
static __always_inline u16 get_summary(u8 flags, u8 direction, u8 state)
{
	return flags | (direction & 3) << 10 | (state & 15) << 12;
}

/*
 * The members that belong to this socket alone are also reachable as one
 * struct, `own`, so that a child can clear them and keep the inherited owner.
 * Same method as struct_group() in include/linux/stddef.h of the kernel.
 * clang-format would join the lines of the members, so it is off there.
 */
#define STRUCT_GROUP(name, ...)     \
	union {                     \
		struct {            \
			__VA_ARGS__ \
		};                  \
		struct {            \
			__VA_ARGS__ \
		} name;             \
	}

/*
 * The kernel allocates 72 bytes more, so an entry takes 256 bytes, and one of more than 184 bytes would take 512.
 * `address` and the sessions are the low halves of the kernel's numbers.
 */
/* clang-format off */
struct tracked_socket {
	STRUCT_GROUP(own,
		u64 cookie;
		u64 born_ns;
		u64 established_ns;
		struct reported reported;
		u32 address; /* of the socket, once a program has initialized the entry; a copied entry has the listener's */
		u32 owner_session; /* iterator session of the file walk that last saw the owner hold the socket; 0: none yet */
		u32 resets_sent;
		u32 resets_received;
		u16 incarnation;
		u8 direction;
		u8 flags;
		u8 owner_rank;
		u8 ended : 1;
		u8 attempt_counted : 1; /* of a connect that has not returned yet: it reached SYN_SENT, or has a record */
		u16 last_transition; /* newest state transition that was handled, see encode_transition() */
	);
	struct owner owner; /* a child inherits it from its listener, and `owner_exec_id` too */
	u32 owner_exec_id; /* the owner's self_exec_id when it was recorded: the kernel adds 1 at each exec */
	u16 owner_version; /* grows before and after each change of the owner */
};
/* clang-format on */
_Static_assert(sizeof(struct tracked_socket) <= 184, "an entry takes 256 bytes of kernel memory");
