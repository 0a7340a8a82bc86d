// SPDX-License-Identifier: GPL-2.0-only
/*
 * Resets sent and received. A reset of a connection counts in its record. A
 * segment that belongs to no connection (a closed port, a socket in TIME_WAIT)
 * has no socket with a record, but it has a source: those resets count by peer.
 * Compiled in one unit with connection.bpf.c, after it.
 */
#define MAX_RESET_PEERS 4096
#define IPV4_HEADER_BYTES 20 /* without options */
#define IPV6_HEADER_BYTES 40
#define TCP_FLAGS_AT 13 /* RFC 9293, 3.1 */
#define TCP_FLAG_SYN 0x02
#define TCP_FLAG_ACK 0x10

/*
 * Peer, network namespace, direction -> resets sent to it without a socket.
 * Sources can be forged: no entry pushes out another. When full, resets count
 * in `sums` for an unknown process. The daemon deletes entries that are idle,
 * sooner when the map fills. About 100 bytes an entry: 400 KB.
 */
BPF_HASH(reset_peers, struct reset_peer_key, struct reset_peer, MAX_RESET_PEERS);

KFUNC_PROBE(tcp_receive_reset, struct sock *sk)
{
	struct tracked_socket *tracked = find_tracked_socket(sk);

	if (tracked)
		tracked->resets_received++;
	return 0;
}

/*
 * Fill peer and direction from the headers of the segment `skb`; return 0 if it
 * is neither IPv4 nor IPv6. One read is enough for IPv4 without options; else
 * transport_header is behind options and extension headers. The connection of a
 * segment without SYN can have had either direction.
 */
static __always_inline bool read_segment(struct sk_buff *skb, struct reset_peer_key *key)
{
	u8 header[IPV6_HEADER_BYTES];
	u8 *head = skb->head;
	u16 at = skb->network_header, tcp_at = skb->transport_header;
	u8 flags;

	if (bpf_probe_read_kernel(header, IPV6_HEADER_BYTES, head + at))
		return 0;
	if (header[0] >> 4 == 4) {
		*(u32 *)(key->remote + 8) = bpf_htonl(0xffff);
		__builtin_memcpy(key->remote + 12, header + 12, 4);
	} else if (header[0] >> 4 == 6) {
		__builtin_memcpy(key->remote, header + 8, 16);
	} else {
		return 0;
	}
	flags = header[IPV4_HEADER_BYTES + TCP_FLAGS_AT];
	if (tcp_at - at != IPV4_HEADER_BYTES && bpf_probe_read_kernel(&flags, 1, head + tcp_at + TCP_FLAGS_AT))
		return 0;
	key->direction = (flags & (TCP_FLAG_SYN | TCP_FLAG_ACK)) == TCP_FLAG_SYN ? DIRECTION_IN : DIRECTION_UNKNOWN;
	return 1;
}

/* Count a reset for the peer; return 0 if it has no entry and the map is full. */
static __always_inline bool count_for_peer(struct reset_peer_key *key)
{
	struct reset_peer *peer = reset_peers.lookup(key);
	struct reset_peer created = {};

	if (!peer) {
		created.created_ns = bpf_ktime_get_boot_ns();
		reset_peers.insert(key, &created); /* when another CPU was first, both use its entry */
		peer = reset_peers.lookup(key);
	}
	if (!peer)
		return 0;
	__sync_fetch_and_add(&peer->resets_sent, 1);
	return 1;
}

static __always_inline void count_in_sums(struct owner *owner, u32 netns, u32 direction)
{
	struct sums *total = get_sums(owner, netns, direction);

	if (total)
		__sync_fetch_and_add(&total->resets_sent, 1);
}

/* Count a reset in answer to the segment `skb`, which belongs to no connection. `state`: of `sk`; 0 without a socket. */
static __always_inline void count_without_connection(struct sock *sk, u8 state, struct sk_buff *skb)
{
	struct reset_peer_key key = {};
	struct owner unknown = {};

	if (sk && state)
		key.netns = sk->__sk_common.skc_net->ns.inum;
	else if (skb && skb->dev)
		key.netns = skb->dev->nd_net->ns.inum;
	if (!skb || !read_segment(skb, &key) || !count_for_peer(&key))
		count_in_sums(&unknown, 0, DIRECTION_UNKNOWN);
}

/* Count a reset of the connection with the socket `sk`. */
static __always_inline void count_for_connection(struct sock *sk)
{
	struct tracked_socket *tracked = find_tracked_socket(sk);
	struct owner unknown = {};
	struct connection *record;
	struct tcp_sock *tp;

	if (!tracked) {
		count_in_sums(&unknown, 0, DIRECTION_UNKNOWN);
		return;
	}
	if (!tracked->ended) {
		tracked->resets_sent++;
		return;
	}
	/* close() with unread data first sets CLOSE, then sends the reset: the final record is already written. */
	tp = bpf_skc_to_tcp_sock(sk);
	record = tp ? ledger.ringbuf_reserve(sizeof(*record)) : NULL;
	if (record) {
		fill_correction(record, sk, tp, tracked);
		ledger.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
		return;
	}
	count_in_sums(&tracked->owner, sk->__sk_common.skc_net->ns.inum, tracked->direction);
}

/*
 * Since Linux 6.10 sk may be NULL (no socket for the segment), and may be a small request or time-wait socket, which has
 * only the members of struct sock_common. skb is NULL for a reset that no segment caused, which has a connection. Linux
 * 6.10 to 6.12 can take both pointers for never NULL, and drop tests of them: the state is read by a helper, which copes
 * with NULL, and skb is read only where there is a segment.
 */
KFUNC_PROBE(tcp_send_reset, struct sock *sk, struct sk_buff *skb)
{
	u8 state = 0;

	if (sk)
		bpf_probe_read_kernel(&state, 1, &sk->__sk_common.skc_state);
	if (sk && state && state != TCP_TIME_WAIT && state != TCP_NEW_SYN_RECV && state != TCP_LISTEN)
		count_for_connection(sk);
	else
		count_without_connection(sk, state, skb);
	return 0;
}
