/* SPDX-License-Identifier: GPL-2.0-only */
/* From a socket to `struct connection`, and from that to `struct sums`. No map is used here. */
#pragma once

#include "tracked_socket.h"

#define AF_INET 2
#define AF_INET6 10
#define EADDRNOTAVAIL 99

/* Fill the members that identify the connection: the socket, its addresses, its owner. */
static __always_inline void fill_identity(struct connection *record, struct sock *sk, struct tcp_sock *tp,
					  struct tracked_socket *tracked)
{
	record->cookie = tracked->cookie;
	record->netns = sk->__sk_common.skc_net->ns.inum;
	/* skc_num is already 0 at CLOSE (inet_put_port comes first), inet_sport is not. */
	record->local_port = bpf_ntohs(((struct inet_sock *)tp)->inet_sport);
	record->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	record->incarnation = tracked->incarnation;
	record->family = sk->__sk_common.skc_family;
	record->direction = tracked->direction;
	if (record->family == AF_INET) {
		*(u32 *)(record->local + 8) = *(u32 *)(record->remote + 8) = bpf_htonl(0xffff);
		*(u32 *)(record->local + 12) = sk->__sk_common.skc_rcv_saddr;
		*(u32 *)(record->remote + 12) = sk->__sk_common.skc_daddr;
	} else {
		__builtin_memcpy(record->local, sk->__sk_common.skc_v6_rcv_saddr, 16);
		__builtin_memcpy(record->remote, sk->__sk_common.skc_v6_daddr, 16);
	}
	record->owner = tracked->owner;
}

/* bytes_sent counts every transmission (tcp_output.c). */
static __always_inline u64 get_bytes_sent(struct tcp_sock *tp)
{
	return tp->bytes_sent - tp->bytes_retrans;
}

/* The FIN is one sequence number of bytes_received. */
static __always_inline u64 get_bytes_received(struct sock *sk, struct tcp_sock *tp)
{
	return tp->bytes_received - !!(sk->__sk_common.skc_flags & (1UL << SOCK_DONE));
}

/* Fill `record`, which is all zero, except for the members that only an ended connection has, and the state. */
static __always_inline void fill_record(struct connection *record, struct sock *sk, struct tcp_sock *tp,
					struct tracked_socket *tracked)
{
	fill_identity(record, sk, tp, tracked);
	record->born_ns = tracked->born_ns;
	record->established_ns = tracked->established_ns;
	record->bytes_sent = get_bytes_sent(tp);
	record->bytes_received = get_bytes_received(sk, tp);
	record->packets_sent = tp->segs_out;
	record->packets_received = tp->segs_in;
	record->retransmits = tp->total_retrans;
	record->resets_sent = tracked->resets_sent;
	record->resets_received = tracked->resets_received;
	record->srtt_us = tp->srtt_us >> 3;
	record->drops = sk->sk_drops;
	if (sk->__sk_common.skc_state == TCP_LISTEN) {
		record->send_queue = sk->sk_max_ack_backlog;
		record->receive_queue = sk->sk_ack_backlog;
		record->half_open = ((struct inet_connection_sock *)tp)->icsk_accept_queue.qlen;
	} else {
		record->send_queue = tp->write_seq - tp->snd_una;
		record->receive_queue =
			tp->rcv_nxt - tp->copied_seq - !!(sk->__sk_common.skc_flags & (1UL << SOCK_DONE));
	}
	if (is_in_sockmap(sk))
		tracked->flags |= FLAG_SOCKMAP;
	record->flags = tracked->flags;
}

/* An attempt to connect that failed before its first packet: the socket does not have these members. */
struct attempt {
	u8 remote[16]; /* IPv4 as ::ffff:a.b.c.d; 0.0.0.0 or :: without an address */
	u16 remote_port; /* host order */
	u16 error; /* a positive errno */
};

/* Fill the final record of a connection that leaves the state `from`. `attempt`: NULL for one that reached SYN_SENT. */
static __always_inline void fill_final_record(struct connection *record, struct sock *sk, struct tcp_sock *tp,
					      struct tracked_socket *tracked, int from, struct attempt *attempt)
{
	__builtin_memset(record, 0, sizeof(*record));
	fill_record(record, sk, tp, tracked);
	record->ended_ns = bpf_ktime_get_boot_ns();
	record->state = TCP_CLOSE;
	record->error = sk->sk_err;
	/*
	 * tcp_v4_connect found no free port, or the bound one is in use towards this peer: only its caller gets the error.
	 * sk_shutdown: close() before the first packet, which TCP Fast Open can delay to the first send.
	 */
	if (from == TCP_SYN_SENT && !record->error && !tp->segs_out && !sk->sk_shutdown)
		record->error = EADDRNOTAVAIL;
	if (!attempt)
		return;
	__builtin_memcpy(record->remote, attempt->remote, 16);
	record->remote_port = attempt->remote_port;
	record->error = attempt->error;
}

/* Fill a correction: one more reset sent, by a connection whose final record is already written. */
static __always_inline void fill_correction(struct connection *record, struct sock *sk, struct tcp_sock *tp,
					    struct tracked_socket *tracked)
{
	__builtin_memset(record, 0, sizeof(*record));
	fill_identity(record, sk, tp, tracked);
	record->resets_sent = 1;
	record->ended_ns = bpf_ktime_get_boot_ns();
	record->state = TCP_CLOSE;
	record->flags = FLAG_CORRECTION | (tracked->flags & FLAG_SOCKMAP);
}

/* Add to `total` the part of an ended connection that the daemon has not read yet. */
static __always_inline void add_to_sums(struct sums *total, struct sock *sk, struct tcp_sock *tp,
					struct tracked_socket *tracked)
{
	struct reported *reported = &tracked->reported;
	u8 new_flags = tracked->flags & ~reported->summary;

	__sync_fetch_and_add(&total->connects, (new_flags & FLAG_CONNECT) ? 1 : 0);
	__sync_fetch_and_add(&total->accepts, (new_flags & FLAG_ACCEPTED) ? 1 : 0);
	__sync_fetch_and_add(&total->established,
			     tracked->established_ns && !(reported->summary & REPORTED_ESTABLISHED));
	__sync_fetch_and_add(&total->closes, 1);
	__sync_fetch_and_add(&total->connect_failures,
			     (tracked->flags & FLAG_FAILED) && tracked->direction == DIRECTION_OUT);
	__sync_fetch_and_add(&total->resets_sent, tracked->resets_sent - reported->resets_sent);
	__sync_fetch_and_add(&total->resets_received, tracked->resets_received - reported->resets_received);
	/* As in user space: a connection older than the programs counts only from its first reading on. */
	if (!tracked->born_ns && !(reported->summary & REPORTED_SEEN))
		return;
	__sync_fetch_and_add(&total->bytes_sent, get_bytes_sent(tp) - reported->bytes_sent);
	__sync_fetch_and_add(&total->bytes_received, get_bytes_received(sk, tp) - reported->bytes_received);
	__sync_fetch_and_add(&total->packets_sent, (u32)(tp->segs_out - reported->packets_sent));
	__sync_fetch_and_add(&total->packets_received, (u32)(tp->segs_in - reported->packets_received));
	__sync_fetch_and_add(&total->retransmits, (u32)(tp->total_retrans - reported->retransmits));
}
