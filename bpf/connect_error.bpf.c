// SPDX-License-Identifier: GPL-2.0-only
/*
 * Attempts to connect that fail before their first packet: no route, denied by a
 * policy, no free port at bind. They never leave the state CLOSE. These are fexit
 * programs, one or two per connect; a kernel or policy that refuses fexit costs
 * only these counts. Compiled in one unit with connection.bpf.c, after it.
 *
 * tcp_v4_connect and tcp_v6_connect run once per attempt of any kind:
 * connect, sendto with TCP Fast Open, io_uring, MPTCP for its subflows, the kernel.
 */
#define EADDRINUSE 98
#define SS_UNCONNECTED 1 /* include/uapi/linux/net.h */

struct sockaddr;

/* The address that was given to connect. `family` 0: none, or not a whole one. */
struct destination {
	u8 address[16]; /* IPv4 as ::ffff:a.b.c.d */
	u16 port; /* host order */
	u16 family;
};

/* struct sockaddr_in and struct sockaddr_in6, which begin alike (include/uapi/linux/in.h, in6.h). */
struct socket_address {
	u16 family;
	u16 port;
	u32 ipv4; /* of IPv6: the flow label */
	u8 ipv6[16];
};
#define IPV4_ADDRESS_BYTES 16 /* struct sockaddr_in */
#define IPV6_ADDRESS_BYTES 24 /* struct sockaddr_in6 without the scope (RFC 2133) */

static __always_inline void read_destination(struct destination *to, struct sockaddr *given, int length)
{
	struct socket_address address = {};

	if (length < IPV4_ADDRESS_BYTES)
		return;
	if (length >= IPV6_ADDRESS_BYTES)
		bpf_probe_read_kernel(&address, sizeof(address), given);
	else
		bpf_probe_read_kernel(&address, IPV4_ADDRESS_BYTES, given);
	if (address.family == AF_INET) {
		*(u32 *)(to->address + 8) = bpf_htonl(0xffff);
		*(u32 *)(to->address + 12) = address.ipv4;
	} else if (address.family == AF_INET6 && length >= IPV6_ADDRESS_BYTES) {
		__builtin_memcpy(to->address, address.ipv6, 16);
	} else {
		return;
	}
	to->port = bpf_ntohs(address.port);
	to->family = address.family;
}

/* Write the record of an attempt that failed with the negative errno `result`. `flags`: more flags of the record. */
static __always_inline void record_attempt(struct sock *sk, struct tracked_socket *tracked, struct destination *to,
					   int result, u8 flags)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct attempt attempt = {};

	if (!tp)
		return;
	handle_connect(tracked);
	tracked->flags |= FLAG_FAILED | flags;
	tracked->ended = 1;
	__builtin_memcpy(attempt.remote, to->address, 16);
	if (!to->family && sk->__sk_common.skc_family == AF_INET)
		*(u32 *)(attempt.remote + 8) = bpf_htonl(0xffff); /* 0.0.0.0 */
	attempt.remote_port = to->port;
	attempt.error = -result;
	write_final_record(sk, tp, tracked, TCP_CLOSE, &attempt);
	tracked->attempt_counted = 0;
}

static __always_inline bool is_inet_tcp(struct sock *sk)
{
	return is_tcp(sk) && (sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6);
}

/* Handle an attempt that a policy denied: an LSM, or a BPF program of a control group. */
static __always_inline void handle_denial(struct sock *sk, struct sockaddr *given, int length, int result)
{
	struct destination to = {};
	struct tracked_socket *tracked;

	if (!result || !is_inet_tcp(sk))
		return;
	read_destination(&to, given, length);
	if (!to.family)
		return; /* connect to AF_UNSPEC disconnects */
	preempt_disable();
	tracked = get_tracked_socket(sk);
	if (tracked) {
		record_attempt(sk, tracked, &to, result, FLAG_DENIED);
		drop_apart_entry(sk, tracked);
	}
	preempt_enable();
}

/*
 * Handle the end of tcp_v4_connect or tcp_v6_connect. An attempt that reached
 * SYN_SENT is already counted. `is_inner`: tcp_v6_connect called tcp_v4_connect
 * for a mapped address, and ends after it with the same result.
 */
static __always_inline void handle_attempt(struct sock *sk, struct sockaddr *given, int length, int result,
					   bool is_inner)
{
	struct destination to = {};
	struct tracked_socket *tracked;

	preempt_disable();
	tracked = find_tracked_socket(sk);
	/* The end of an attempt that reached SYN_SENT deletes an entry in `apart_sockets`. */
	if (!tracked && result && !is_newest_event(sk, TCP_SYN_SENT, TCP_CLOSE))
		tracked = get_tracked_socket(sk);
	if (tracked && result && !tracked->attempt_counted) {
		read_destination(&to, given, length);
		record_attempt(sk, tracked, &to, result, to.family ? FLAG_UNSENT : 0);
	}
	if (tracked) {
		tracked->attempt_counted = is_inner;
		if (tracked->ended && !is_inner)
			drop_apart_entry(sk, tracked);
	}
	preempt_enable();
}

/* Variant 1: of tcp_v6_connect. */
KRETFUNC_PROBE(tcp_v4_connect, struct sock *sk, struct sockaddr *given, int length, int result)
{
	if (is_inet_tcp(sk))
		handle_attempt(sk, given, length, result, sk->__sk_common.skc_family == AF_INET6 && !get_variant());
	return 0;
}

/*
 * Also of tcp_v6_pre_connect. Control groups' BPF programs run here, before the attempt; systemd's IPAddressDeny= drops
 * packets instead.
 */
KRETFUNC_PROBE(tcp_v4_pre_connect, struct sock *sk, struct sockaddr *given, int length, int result)
{
	handle_denial(sk, given, length, result);
	return 0;
}

/* Also runs when a connect without waiting is called again for its result, which is no attempt. */
KRETFUNC_PROBE(security_socket_connect, struct socket *sock, struct sockaddr *given, int length, int result)
{
	struct sock *sk = sock->sk;

	if (result && sk && sock->state == SS_UNCONNECTED && sk->__sk_common.skc_state == TCP_CLOSE)
		handle_denial(sk, given, length, result);
	return 0;
}

/*
 * A bind to any port, which only clients need, found no free port: no connect
 * follows. A socket in LISTEN has no port because its server called no bind.
 */
KRETFUNC_PROBE(inet_csk_get_port, struct sock *sk, unsigned short port, int result)
{
	struct destination nowhere = {};
	struct tracked_socket *tracked;

	if (!result || port || !is_inet_tcp(sk) || sk->__sk_common.skc_state != TCP_CLOSE)
		return 0;
	preempt_disable();
	tracked = get_tracked_socket(sk);
	if (tracked) {
		record_attempt(sk, tracked, &nowhere, -EADDRINUSE, 0);
		drop_apart_entry(sk, tracked);
	}
	preempt_enable();
	return 0;
}
