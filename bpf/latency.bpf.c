// SPDX-License-Identifier: GPL-2.0-only
/*
 * On demand: response latency, and UDP per process. These programs run at
 * every message, so they are attached only while a rule or a command uses
 * their values. Compiled in one unit with connection.bpf.c, after it.
 *
 * There are two sets of programs, and only one is loaded: on the tracepoints
 * sock_send_length and sock_recv_length (Linux 6.3, commit 6e6eda44b939), else
 * fexit programs on the functions of the protocols, where the kernel allows that.
 *
 * TCP's receives are seen at tcp_rcv_space_adjust in both sets: the kernel runs
 * it for each way out of the receive queue (recv, splice, zero copy, kernel TLS,
 * readers in the kernel). The other tracepoints see system calls only.
 */
#define IPPROTO_UDP 17
#define MSG_OOB 0x1
#define MSG_PEEK 0x2
#define MSG_ERRQUEUE 0x2000

#ifndef RESPONSES_BYTES
#define RESPONSES_BYTES (4 << 20)
#endif
#ifndef DATAGRAMS_CAPACITY
#define DATAGRAMS_CAPACITY 4096
#endif

struct msghdr;
struct page;

struct pending_send {
	u64 sent_ns; /* time of the last send without a response; 0: responded */
	u32 copied_seq; /* of tcp_sock at that time: unchanged while the process only peeks */
	u32 pad;
};

/*
 * Socket -> struct pending_send. The kernel frees an entry together with its
 * socket. When the kernel has no memory for an entry, LOSS_STORAGE counts. 80
 * bytes an entry.
 */
BPF_SK_STORAGE(pending_sends, struct pending_send);

/*
 * Time when the programs were attached, in ns: written by the daemon before it
 * attaches them. A send before that time can have had its response unobserved.
 * No entry is deleted. 8 bytes.
 */
BPF_ARRAY(attached_since, u64, 1);

/*
 * One record per response: exact, not a histogram. The daemon reads and removes
 * them at each tick; when full, LOSS_RESPONSES counts. 4 MB: 170,000 responses
 * per tick.
 */
BPF_RINGBUF_OUTPUT(responses, RESPONSES_BYTES / PAGE_SIZE);

/*
 * Process, network namespace, family -> number of datagrams and their payload.
 * Never cleared: the daemon computes differences, and deletes the entries of
 * ended processes. When full, LOSS_DATAGRAMS counts. About 190 bytes an entry.
 */
BPF_HASH(datagrams, struct datagrams_key, struct datagrams, DATAGRAMS_CAPACITY);

static __always_inline struct datagrams *get_datagrams(struct sock *sk)
{
	struct task_struct *task = current_task();
	struct task_struct *leader = task->group_leader;
	struct datagrams_key key = {};
	struct datagrams zero = {};
	struct datagrams *total;

	key.tgid = task->tgid;
	if (leader)
		key.start_ns = leader->start_boottime;
	key.netns = sk->__sk_common.skc_net->ns.inum;
	key.family = sk->__sk_common.skc_family;
	total = datagrams.lookup(&key);
	if (total) {
		if (compare_facts(&total->owner, task))
			set_owner(&total->owner, task);
		return total;
	}
	set_owner(&zero.owner, task);
	datagrams.insert(&key, &zero); /* when another thread was first, both use its entry */
	total = datagrams.lookup(&key);
	if (!total)
		count_loss(LOSS_DATAGRAMS);
	return total;
}

static __always_inline bool is_mptcp(struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_MPTCP && sk->sk_type == SOCK_STREAM;
}

/*
 * Return the cookie of the connection to which a response belongs: of the first subflow, for a socket of MPTCP. 0:
 * unknown, because that subflow has ended. No helper turns a pointer of a tracing program into a struct mptcp_sock.
 */
static __always_inline u64 get_connection_cookie(struct sock *sk)
{
	u64 cookie = 0;
#ifdef HAS_MPTCP
	struct sock *first = NULL;

	if (is_mptcp(sk)) {
		bpf_probe_read_kernel(&first, sizeof(first), (void *)sk + __builtin_offsetof(struct mptcp_sock, first));
		if (first)
			bpf_probe_read_kernel(&cookie, sizeof(cookie),
					      (void *)first + __builtin_offsetof(struct sock_common, skc_cookie));
		return cookie;
	}
#endif
	return bpf_get_socket_cookie(sk);
}

static __always_inline void start_exchange(struct sock *sk)
{
	struct pending_send *pending = pending_sends.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	struct tcp_sock *tp;

	if (!pending) {
		count_loss(LOSS_RESPONSES);
		return;
	}
	pending->sent_ns = bpf_ktime_get_boot_ns();
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		pending->copied_seq = tp->copied_seq;
}

/* Mark a connection in a sockmap. Without it, one that is closed by this end before the next pass is not noticed. */
static __always_inline void note_sockmap(struct sock *sk)
{
	struct tracked_socket *tracked;

	if (!is_in_sockmap(sk))
		return;
	tracked = find_tracked_socket(sk);
	if (tracked)
		tracked->flags |= FLAG_SOCKMAP;
}

static __always_inline int handle_send(struct sock *sk, int length)
{
	struct datagrams *total;

	if (length < 0)
		return 0;
	if ((is_tcp(sk) || is_mptcp(sk)) && length) {
		note_sockmap(sk);
		start_exchange(sk);
	} else if (sk->sk_protocol == IPPROTO_UDP) {
		total = get_datagrams(sk);
		if (total) {
			__sync_fetch_and_add(&total->datagrams_sent, 1);
			__sync_fetch_and_add(&total->bytes_sent, length);
		}
	}
	return 0;
}

static __always_inline int record_response(struct sock *sk, struct pending_send *pending)
{
	u64 sent_ns = pending->sent_ns;
	struct response *response;
	u64 *attached_ns;
	int zero = 0;

	if (!sent_ns)
		return 0;
	pending->sent_ns = 0;
	attached_ns = attached_since.lookup(&zero);
	if (!attached_ns || sent_ns < *attached_ns)
		return 0;
	response = responses.ringbuf_reserve(sizeof(*response));
	if (!response) {
		count_loss(LOSS_RESPONSES);
		return 0;
	}
	response->cookie = get_connection_cookie(sk);
	response->latency_ns = bpf_ktime_get_boot_ns() - sent_ns;
	responses.ringbuf_submit(response, BPF_RB_NO_WAKEUP);
	return 0;
}

/* MPTCP's own receive queue, urgent data, and messages in a sockmap do not come through tcp_rcv_space_adjust. */
static __always_inline bool bypasses_receive_queue(struct sock *sk, int flags)
{
	return is_mptcp(sk) || (is_tcp(sk) && (flags & MSG_OOB || is_in_sockmap(sk)));
}

static __always_inline int handle_receive(struct sock *sk, int length, int flags)
{
	struct pending_send *pending;
	struct datagrams *total;

	if (length < 0 || flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	if (is_tcp(sk))
		note_sockmap(sk);
	if (length && bypasses_receive_queue(sk, flags)) {
		pending = pending_sends.sk_storage_get(sk, 0, 0);
		return pending ? record_response(sk, pending) : 0;
	}
	if (sk->sk_protocol != IPPROTO_UDP)
		return 0;
	total = get_datagrams(sk);
	if (total) {
		__sync_fetch_and_add(&total->datagrams_received, 1);
		__sync_fetch_and_add(&total->bytes_received, length);
	}
	return 0;
}

static __always_inline bool is_inet_socket(struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6;
}

KFUNC_PROBE(sock_send_length, struct sock *sk, int length, int flags)
{
	return is_inet_socket(sk) ? handle_send(sk, length) : 0;
}

KFUNC_PROBE(sock_recv_length, struct sock *sk, int length, int flags)
{
	return is_inet_socket(sk) ? handle_receive(sk, length, flags) : 0;
}

/* It runs while the socket is locked, after copied_seq has moved; MSG_PEEK leaves copied_seq as it is. */
KFUNC_PROBE(tcp_rcv_space_adjust, struct sock *sk)
{
	struct pending_send *pending = pending_sends.sk_storage_get(sk, 0, 0);
	struct tcp_sock *tp;

	if (!pending || !pending->sent_ns)
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || tp->copied_seq == pending->copied_seq)
		return 0;
	return record_response(sk, pending);
}

/* Also of udp_sendmsg, udpv6_sendmsg and mptcp_sendmsg. */
KRETFUNC_PROBE(tcp_sendmsg, struct sock *sk, struct msghdr *msg, size_t size, int length)
{
	return handle_send(sk, length);
}

/* sendfile and splice; Linux 6.5 removed it (commit dc97391e6610), and sends their pages by sendmsg. */
KRETFUNC_PROBE(tcp_sendpage, struct sock *sk, struct page *page, int offset, size_t size, int flags, int length)
{
	return handle_send(sk, length);
}

/*
 * Also of udpv6_recvmsg and mptcp_recvmsg. Since Linux 5.19 there is no argument nonblock: of the kernels without the
 * tracepoints, 5.19 to 6.2 are supported.
 */
KRETFUNC_PROBE(udp_recvmsg, struct sock *sk, struct msghdr *msg, size_t size, int flags, int *address, int length)
{
	return handle_receive(sk, length, flags);
}
