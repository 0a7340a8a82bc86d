// SPDX-License-Identifier: GPL-2.0-only
/*
 * On demand: response latency, and UDP per process. These programs run at
 * every message, so they are attached only while somebody reads what they
 * measure. Compiled in one unit with connection.bpf.c, after it.
 *
 * Two ways in, one of which is loaded: the tracepoints sock_send_length and
 * sock_recv_length (Linux 6.3, commit 6e6eda44b939), else fexit on the
 * protocols' functions, where the kernel allows that.
 */
#define IPPROTO_UDP 17
#define MSG_PEEK 0x2
#define MSG_ERRQUEUE 0x2000

#ifndef RESPONSES_BYTES
#define RESPONSES_BYTES (4 << 20)
#endif
#ifndef DATAGRAMS_CAPACITY
#define DATAGRAMS_CAPACITY 4096
#endif

struct msghdr;

/* Socket -> when its process sent last and had no answer yet; 0: has one. Lives and dies with the socket; 72 bytes. */
BPF_SK_STORAGE(exchanges, u64);

/*
 * When the programs were attached: written by the daemon before it attaches
 * them. A send from before may have had its answer while nobody looked.
 */
BPF_ARRAY(following_since, u64, 1);

/*
 * One record per answer: exact, not a histogram. The daemon reads them at each
 * tick; when full, LOSS_RESPONSES counts. 4 MB: 170,000 answers a tick.
 */
BPF_RINGBUF_OUTPUT(responses, RESPONSES_BYTES / PAGE_SIZE);

/*
 * Process, network namespace, family -> datagrams and their payload. Never
 * cleared: the daemon takes differences, and deletes entries of processes
 * that are gone. When full, LOSS_DATAGRAMS counts. About 190 bytes an entry.
 */
BPF_HASH(datagrams, struct datagrams_key, struct datagrams, DATAGRAMS_CAPACITY);

static __always_inline struct datagrams *datagrams_of(struct sock *sk)
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
	if (total)
		return total;
	own(&zero.owner, task);
	datagrams.insert(&key, &zero); /* another thread may be first: both then find it */
	total = datagrams.lookup(&key);
	if (!total)
		lose(LOSS_DATAGRAMS);
	return total;
}

static __always_inline int sent(struct sock *sk, int length)
{
	struct datagrams *total;
	u64 *since;

	if (length < 0)
		return 0;
	if (sk->sk_protocol == IPPROTO_TCP && length) {
		since = exchanges.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
		if (since)
			*since = bpf_ktime_get_boot_ns();
		else
			lose(LOSS_STORAGE);
	} else if (sk->sk_protocol == IPPROTO_UDP) {
		total = datagrams_of(sk);
		if (total) {
			__sync_fetch_and_add(&total->datagrams_sent, 1);
			__sync_fetch_and_add(&total->bytes_sent, length);
		}
	}
	return 0;
}

static __always_inline int answered(struct sock *sk)
{
	u64 *since = exchanges.sk_storage_get(sk, 0, 0);
	struct response *response;
	u64 *attached_ns;
	u64 sent_ns;
	int zero = 0;

	if (!since || !*since)
		return 0;
	sent_ns = *since;
	*since = 0;
	attached_ns = following_since.lookup(&zero);
	if (!attached_ns || sent_ns < *attached_ns)
		return 0;
	response = responses.ringbuf_reserve(sizeof(*response));
	if (!response) {
		lose(LOSS_RESPONSES);
		return 0;
	}
	response->cookie = bpf_get_socket_cookie(sk);
	response->latency_ns = bpf_ktime_get_boot_ns() - sent_ns;
	responses.ringbuf_submit(response, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline int received(struct sock *sk, int length, int flags)
{
	struct datagrams *total;

	if (length < 0 || flags & (MSG_PEEK | MSG_ERRQUEUE))
		return 0;
	if (sk->sk_protocol == IPPROTO_TCP)
		return length ? answered(sk) : 0;
	if (sk->sk_protocol != IPPROTO_UDP)
		return 0;
	total = datagrams_of(sk);
	if (total) {
		__sync_fetch_and_add(&total->datagrams_received, 1);
		__sync_fetch_and_add(&total->bytes_received, length);
	}
	return 0;
}

static __always_inline bool internet(struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_INET || sk->__sk_common.skc_family == AF_INET6;
}

KFUNC_PROBE(sock_send_length, struct sock *sk, int length, int flags)
{
	return internet(sk) ? sent(sk, length) : 0;
}

KFUNC_PROBE(sock_recv_length, struct sock *sk, int length, int flags)
{
	return internet(sk) ? received(sk, length, flags) : 0;
}

KRETFUNC_PROBE(tcp_sendmsg, struct sock *sk, struct msghdr *msg, size_t size, int length)
{
	return sent(sk, length);
}

/* Since Linux 5.19 without the argument nonblock: where there are no tracepoints, 5.19 to 6.2 are served. */
KRETFUNC_PROBE(tcp_recvmsg, struct sock *sk, struct msghdr *msg, size_t size, int flags, int *address, int length)
{
	return received(sk, length, flags);
}

KRETFUNC_PROBE(udp_sendmsg, struct sock *sk, struct msghdr *msg, size_t size, int length)
{
	return sent(sk, length);
}

KRETFUNC_PROBE(udp_recvmsg, struct sock *sk, struct msghdr *msg, size_t size, int flags, int *address, int length)
{
	return received(sk, length, flags);
}

KRETFUNC_PROBE(udpv6_sendmsg, struct sock *sk, struct msghdr *msg, size_t size, int length)
{
	return sent(sk, length);
}

KRETFUNC_PROBE(udpv6_recvmsg, struct sock *sk, struct msghdr *msg, size_t size, int flags, int *address, int length)
{
	return received(sk, length, flags);
}
