// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of every TCP connection (tp_btf programs) and the pass over live
 * sockets (a task_file iterator). No program sits on the send or receive path:
 * the kernel counts bytes and segments in tcp_sock, we only read them.
 *
 * kernel_types.h is written at start from the running kernel's BTF and holds
 * just the members used here. Memory is read through BTF-typed pointers, so
 * that the verifier proves each offset; strings alone need a helper.
 */
#include <kernel_types.h>
#include "connection.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define ECONNRESET 104
#define EADDRNOTAVAIL 99
#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */

#ifndef LEDGER_BYTES
#define LEDGER_BYTES (16 << 20)
#endif
#ifndef SUMS_CAPACITY
#define SUMS_CAPACITY 4096
#endif

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

/* How good the owner kept with a socket is: a better one replaces a worse one. */
enum rank {
	RANK_NONE = 0,
	RANK_LISTENER = 1, /* the listener's owner, taken over by the child */
	RANK_HOLDER = 2, /* holds a file of it, or closed it */
	RANK_CONNECTOR = 3, /* called connect */
};

/* What the daemon has been told of a live connection, so that folding adds only the rest. */
struct reported {
	u64 bytes_sent;
	u64 bytes_received;
	u32 packets_sent;
	u32 packets_received;
	u32 retransmits;
	u32 resets_sent;
	u32 resets_received;
	u32 flags; /* FLAG_CONNECT, FLAG_ACCEPTED, REPORTED_* */
};

#define REPORTED_ESTABLISHED 0x100
#define REPORTED_SEEN 0x200

struct following {
	u64 cookie;
	u64 born_ns;
	u64 established_ns;
	u64 pass; /* iterator session that last reported it */
	u64 owner_pass; /* iterator session that last saw the owner hold it; 0: none yet */
	struct reported reported;
	u32 resets_sent;
	u32 resets_received;
	u16 life;
	u8 direction;
	u8 flags;
	u8 rank;
	u8 ended;
	u16 step; /* the newest change of state that was taken */
	struct owner owner;
};

/*
 * Socket -> what we know of it beyond tcp_sock. Lives and dies with the
 * socket: nobody deletes entries, it cannot overflow, a socket's address may
 * be used again at once. BPF_F_CLONE hands a listener's entry to its children.
 * About 256 bytes of kernel memory per socket. bcc's own macro has no flags.
 */
#define BPF_F_CLONE (1U << 9)
struct conns_table_t {
	int key;
	struct following leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage"))) struct conns_table_t conns = {
	.flags = BPF_F_NO_PREALLOC | BPF_F_CLONE,
};
BPF_ANNOTATE_KV_PAIR(conns, int, struct following);

/*
 * Final rows, one for each connection, written once at its end, in the order
 * of ends. The daemon reads them at each tick. When full, the row is added to
 * `sums` instead and LOSS_LEDGER_FULL counts it. 216 bytes an entry: 77,672 in
 * 16 MB. A hash map in its place cost 0.5 to 1 us more a connection.
 */
BPF_RINGBUF_OUTPUT(ledger, LEDGER_BYTES / PAGE_SIZE);

/*
 * Process, network namespace, direction -> totals of what found no room in
 * the ledger, and of resets that belong to no row. Never cleared: the daemon
 * takes differences. When full, LOSS_SUMS_FULL counts. About 250 bytes an
 * entry: 1 MB.
 */
BPF_HASH(sums, struct sums_key, struct sums, SUMS_CAPACITY);

/* enum loss -> how often since the programs were loaded. 40 bytes. */
BPF_ARRAY(losses, u64, LOSS_KINDS);

/* The newest event on this CPU that was not skipped. */
struct handled {
	u64 socket;
	u64 step;
};
BPF_PERCPU_ARRAY(handled, struct handled, 1);

/* How often the stand-in took an event that was skipped. */
BPF_ARRAY(stood_in, u64, 1);

/*
 * The one reader of the iterator: its session, the session before, and its
 * tgid in the initial pid namespace, since it may be the one who drops the last
 * reference to a file that its owner closed during the pass.
 */
struct observer {
	u64 session;
	u64 previous;
	u32 tgid;
	u32 pad;
};
BPF_ARRAY(observers, struct observer, 1);

/* Helpers by number (include/uapi/linux/bpf.h): bcc's header wraps some of them in types that we do not have. */
static struct socket *(*sock_from_file)(struct file *file) = (void *)162;
static struct task_struct *(*current_task)(void) = (void *)158;

/*
 * Newer kernels let a process be preempted in the middle of a program on a tracepoint (Linux 7.3; tracepoint_srcu), and
 * skip that program on this CPU until the process runs again. There the program forbids it, by kfuncs for whose numbers
 * the loader puts in the kernel's own.
 */
#ifdef KFUNC_PREEMPT_DISABLE
static void (*preempt_disable)(void) = (void *)KFUNC_PREEMPT_DISABLE;
static void (*preempt_enable)(void) = (void *)KFUNC_PREEMPT_ENABLE;
#else
#define preempt_disable()
#define preempt_enable()
#endif

static __always_inline void lose(int kind)
{
	u64 *count = losses.lookup(&kind);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Tell whether the process kept as owner had the name that this one has now. */
static __always_inline bool named(struct owner *owner, struct task_struct *leader)
{
	return *(u64 *)owner->comm == *(u64 *)leader->comm && *(u64 *)(owner->comm + 8) == *(u64 *)(leader->comm + 8);
}

static __always_inline void own(struct owner *owner, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	const struct cred *cred = task->cred;
	struct css_set *cgroups = task->cgroups;
	struct mm_struct *mm = task->mm;
	bool same_name = 0;
	struct file *exe;

	owner->tgid = task->tgid;
	owner->cgroup_id = 0;
	if (leader) {
		same_name = named(owner, leader);
		owner->start_ns = leader->start_boottime;
		__builtin_memcpy(owner->comm, leader->comm, COMM_LEN);
	}
	if (cred)
		owner->uid = cred->uid;
	if (cgroups && cgroups->dfl_cgrp && cgroups->dfl_cgrp->kn)
		owner->cgroup_id = cgroups->dfl_cgrp->kn->id;
	if (!mm && same_name)
		return; /* it exits, and gives its memory back before its files: still the executable that was known */
	__builtin_memset(owner->exe, 0, EXE_LEN);
	if (!mm)
		return;
	exe = mm->exe_file;
	if (exe && exe->f_path.dentry)
		bpf_probe_read_kernel_str(owner->exe, EXE_LEN, exe->f_path.dentry->d_name.name);
}

/* Return what is kept with the socket, made afresh for a new socket or a listener's child; NULL without memory. */
static __always_inline struct following *follow(struct sock *sk)
{
	struct following *s = conns.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	u64 cookie;

	if (!s) {
		lose(LOSS_STORAGE);
		return NULL;
	}
	cookie = bpf_get_socket_cookie(sk);
	if (s->cookie == cookie)
		return s;
	if (s->cookie) { /* the listener's, copied by sk_clone: nothing but its owner holds for the child */
		__builtin_memset(s, 0, __builtin_offsetof(struct following, owner));
		s->direction = DIRECTION_IN;
		s->rank = s->owner.tgid ? RANK_LISTENER : RANK_NONE;
	}
	s->cookie = cookie;
	return s;
}

static __always_inline void fill(struct connection *row, struct sock *sk, struct tcp_sock *tp, struct following *s)
{
	row->cookie = s->cookie;
	row->born_ns = s->born_ns;
	row->established_ns = s->established_ns;
	/* bytes_sent counts every transmission (tcp_output.c), the FIN is one sequence number of bytes_received. */
	row->bytes_sent = tp->bytes_sent - tp->bytes_retrans;
	row->bytes_received = tp->bytes_received - !!(sk->__sk_common.skc_flags & (1UL << SOCK_DONE));
	row->packets_sent = tp->segs_out;
	row->packets_received = tp->segs_in;
	row->retransmits = tp->total_retrans;
	row->resets_sent = s->resets_sent;
	row->resets_received = s->resets_received;
	row->srtt_us = tp->srtt_us >> 3;
	row->netns = sk->__sk_common.skc_net->ns.inum;
	row->drops = sk->sk_drops;
	if (sk->__sk_common.skc_state == TCP_LISTEN) {
		row->send_queue = sk->sk_max_ack_backlog;
		row->receive_queue = sk->sk_ack_backlog;
	} else {
		row->send_queue = tp->write_seq - tp->snd_una;
		row->receive_queue = tp->rcv_nxt - tp->copied_seq - !!(sk->__sk_common.skc_flags & (1UL << SOCK_DONE));
	}
	/* skc_num is 0 by the time of CLOSE (inet_put_port comes first), inet_sport is not. */
	row->local_port = bpf_ntohs(((struct inet_sock *)tp)->inet_sport);
	row->remote_port = bpf_ntohs(sk->__sk_common.skc_dport);
	row->life = s->life;
	row->family = sk->__sk_common.skc_family;
	row->direction = s->direction;
	row->flags = s->flags;
	if (row->family == AF_INET) {
		*(u32 *)(row->local + 8) = *(u32 *)(row->remote + 8) = bpf_htonl(0xffff);
		*(u32 *)(row->local + 12) = sk->__sk_common.skc_rcv_saddr;
		*(u32 *)(row->remote + 12) = sk->__sk_common.skc_daddr;
	} else {
		__builtin_memcpy(row->local, sk->__sk_common.skc_v6_rcv_saddr, 16);
		__builtin_memcpy(row->remote, sk->__sk_common.skc_v6_daddr, 16);
	}
	row->owner = s->owner;
}

static __always_inline struct sums *sums_of(struct owner *owner, u32 netns, u32 direction)
{
	struct sums_key key = {
		.start_ns = owner->start_ns,
		.tgid = owner->tgid,
		.netns = netns,
		.direction = direction,
	};
	struct sums zero = {};
	struct sums *total = sums.lookup(&key);

	if (total)
		return total;
	zero.owner = *owner;
	sums.insert(&key, &zero); /* another CPU may be first: both then find it */
	total = sums.lookup(&key);
	if (!total)
		lose(LOSS_SUMS_FULL);
	return total;
}

/* Add to the sums what the daemon does not yet know of a connection that found no room in the ledger. */
static __always_inline void fold(struct connection *row, struct following *s)
{
	struct reported *known = &s->reported;
	struct sums *total;
	bool old;

	/* Like in user space: what is older than the programs counts only from its first reading on. */
	old = !row->born_ns && !(known->flags & REPORTED_SEEN);
	total = sums_of(&row->owner, row->netns, row->direction);
	if (!total)
		return;
	__sync_fetch_and_add(&total->connects, (row->flags & ~known->flags & FLAG_CONNECT) ? 1 : 0);
	__sync_fetch_and_add(&total->accepts, (row->flags & ~known->flags & FLAG_ACCEPTED) ? 1 : 0);
	__sync_fetch_and_add(&total->established, row->established_ns && !(known->flags & REPORTED_ESTABLISHED));
	__sync_fetch_and_add(&total->closes, 1);
	__sync_fetch_and_add(&total->connect_failures, (row->flags & FLAG_FAILED) && row->direction == DIRECTION_OUT);
	__sync_fetch_and_add(&total->resets_sent, row->resets_sent - known->resets_sent);
	__sync_fetch_and_add(&total->resets_received, row->resets_received - known->resets_received);
	if (old)
		return;
	__sync_fetch_and_add(&total->bytes_sent, row->bytes_sent - known->bytes_sent);
	__sync_fetch_and_add(&total->bytes_received, row->bytes_received - known->bytes_received);
	__sync_fetch_and_add(&total->packets_sent, (u32)(row->packets_sent - known->packets_sent));
	__sync_fetch_and_add(&total->packets_received, (u32)(row->packets_received - known->packets_received));
	__sync_fetch_and_add(&total->retransmits, (u32)(row->retransmits - known->retransmits));
}

static __always_inline bool observing(u32 tgid)
{
	int zero = 0;
	struct observer *observer = observers.lookup(&zero);

	return observer && observer->tgid == tgid;
}

/*
 * Take the current process as owner where nothing better is known. Only for
 * transitions made in process context. A kernel thread is nobody's owner: it
 * closes what an io_uring held (io_ring_exit_work), or what was lost in a
 * message over a unix socket.
 */
static __always_inline void own_current(struct following *s)
{
	struct task_struct *task = current_task();

	if (s->rank > RANK_LISTENER || task->flags & PF_KTHREAD || observing(task->tgid))
		return;
	own(&s->owner, task);
	s->rank = RANK_HOLDER;
	s->owner_pass = 0;
}

static __always_inline void note_accept(struct following *s, struct sock *sk)
{
	/* sock_graft() in accept sets sk_socket; closing clears it only after the state has changed. */
	if (s->direction == DIRECTION_IN && sk->sk_socket)
		s->flags |= FLAG_ACCEPTED;
}

static __always_inline void on_connect(struct following *s)
{
	struct reported nothing = {};

	if (s->born_ns || s->ended) { /* the same socket connects again: its counters began anew (tcp_disconnect) */
		s->life++;
		s->ended = 0;
		s->established_ns = 0;
		s->resets_sent = 0;
		s->resets_received = 0;
		s->reported = nothing;
	}
	s->born_ns = bpf_ktime_get_boot_ns();
	s->direction = DIRECTION_OUT;
	s->flags = FLAG_CONNECT;
	s->rank = RANK_CONNECTOR;
	s->owner_pass = 0;
	own(&s->owner, current_task());
}

static __always_inline void on_listen(struct following *s)
{
	own_current(s);
	if (!s->born_ns)
		s->born_ns = bpf_ktime_get_boot_ns(); /* what it drops counts from now on */
}

/*
 * With TCP Fast Open a child is the process's before the handshake has ended
 * (tcp_fastopen_create_child): in SYN_RECV it can be read, written and closed.
 */
static __always_inline void come_in(struct following *s)
{
	u64 now = bpf_ktime_get_boot_ns();

	s->direction = DIRECTION_IN;
	if (!s->born_ns)
		s->born_ns = now;
	if (!s->established_ns)
		s->established_ns = now;
}

static __always_inline void on_established(struct following *s, int from)
{
	if (from == TCP_SYN_RECV && s->direction != DIRECTION_OUT) {
		come_in(s);
		return;
	}
	s->established_ns = bpf_ktime_get_boot_ns();
	if (!s->direction)
		s->direction = DIRECTION_OUT; /* its SYN was sent before the programs were there */
}

static __always_inline void on_closing(struct following *s, int from)
{
	if (from == TCP_SYN_RECV && s->direction != DIRECTION_OUT)
		come_in(s);
	/*
	 * Only what was accepted says goodbye: what a closing listener leaves behind goes to CLOSE at once
	 * (inet_child_forget). sk_socket would not tell of MPTCP's subflows: they lose it first (mptcp_close).
	 */
	if (s->direction == DIRECTION_IN)
		s->flags |= FLAG_ACCEPTED;
	own_current(s);
}

/* Fill the final row. */
static __always_inline void finish(struct connection *row, struct sock *sk, struct tcp_sock *tp, struct following *s,
				   int from)
{
	__builtin_memset(row, 0, sizeof(*row));
	fill(row, sk, tp, s);
	row->ended_ns = bpf_ktime_get_boot_ns();
	row->state = TCP_CLOSE;
	row->error = sk->sk_err;
	if (from == TCP_SYN_SENT && !row->error && !row->local_port)
		row->error = EADDRNOTAVAIL; /* tcp_v4_connect found no free port: it tells the caller alone */
}

static __always_inline void on_end(struct sock *sk, struct following *s, int from)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct connection *row, lost;

	if (!tp)
		return;
	note_accept(s, sk);
	/*
	 * Never a connection: of two last ACKs of one handshake, handled at once, each makes a child, and the one that comes
	 * second is given up (tcp_check_req, inet_csk_complete_hashdance). Nobody has seen it, no peer has to do with it.
	 */
	if (from == TCP_SYN_RECV && !s->established_ns && !s->flags && !tp->bytes_received)
		return;
	if (!s->established_ns && (from == TCP_SYN_SENT || from == TCP_SYN_RECV))
		s->flags |= FLAG_FAILED;
	/* No backend behind the balancer, accept queue overflow, access refused: established, and reset before an answer. */
	if (from == TCP_ESTABLISHED && sk->sk_err == ECONNRESET && s->direction == DIRECTION_OUT && s->born_ns &&
	    !tp->bytes_received)
		s->flags |= FLAG_FAILED;
	/* From these states without an error only close() and connect(AF_UNSPEC) lead here, both in the caller's context. */
	if (!sk->sk_err && (from == TCP_ESTABLISHED || from == TCP_CLOSE_WAIT))
		own_current(s);
	if (from == TCP_SYN_RECV && tp->bytes_received && !s->born_ns)
		s->born_ns = bpf_ktime_get_boot_ns(); /* a fast open that nobody accepted */
	s->ended = 1;
	row = ledger.ringbuf_reserve(sizeof(*row));
	if (row) {
		finish(row, sk, tp, s, from);
		ledger.ringbuf_submit(row, BPF_RB_NO_WAKEUP);
		return;
	}
	finish(&lost, sk, tp, s, from);
	lose(LOSS_LEDGER_FULL);
	fold(&lost, s);
}

static __always_inline u16 step_of(int from, int to)
{
	return from << 8 | to;
}

static __always_inline void change(struct sock *sk, struct following *s, int from, int to)
{
	switch (to) {
	case TCP_SYN_SENT:
		on_connect(s);
		break;
	case TCP_LISTEN:
		on_listen(s);
		break;
	case TCP_ESTABLISHED:
		on_established(s, from);
		break;
	case TCP_FIN_WAIT1:
		if (from == TCP_ESTABLISHED || from == TCP_SYN_RECV)
			on_closing(s, from);
		break;
	case TCP_LAST_ACK:
		on_closing(s, from);
		break;
	case TCP_CLOSE:
		if (from != TCP_LISTEN)
			on_end(sk, s, from);
		break;
	}
}

/*
 * Take a change of state, and note on the socket that it was taken. A child that a listener just made has the listener's
 * entry still, and its cookie is not its own yet (inet_csk_clone_lock).
 */
static __always_inline void take(struct sock *sk, int from, int to)
{
	struct following *s;

	/* What closes without ever having been more than closed; MPTCP's own sockets, SCTP and DCCP pass here, too. */
	if (sk->sk_protocol != IPPROTO_TCP || (from == TCP_CLOSE && to == TCP_CLOSE))
		return;
	s = to == TCP_SYN_RECV ? conns.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : follow(sk);
	if (!s)
		return;
	change(sk, s, from, to);
	s->step = step_of(from, to);
}

/* What tells the socket of an event from that of any other: its cookie, never used again, once it has one. */
static __always_inline u64 identity(struct sock *sk)
{
	return sk->__sk_common.skc_cookie ? sk->__sk_common.skc_cookie : (u64)sk;
}

KFUNC_PROBE(inet_sock_set_state, struct sock *sk, int from, int to)
{
	struct handled *newest;
	int zero = 0;

	preempt_disable();
	take(sk, from, to);
	newest = handled.lookup(&zero);
	if (newest) {
		newest->socket = identity(sk);
		newest->step = step_of(from, to);
	}
	preempt_enable();
	return 0;
}

/*
 * The stand-in: runs after the program above for each event, and takes those that the kernel skipped that one for. A
 * program that is running on a CPU is not run again there (bpf_trace_run): when an interrupt comes in the middle of it,
 * and packets are handled at the interrupt's end, all their events would be lost. Two levels is all there are, a process
 * or one softirq above it, so one of the two programs is always free; and no socket is handled at both levels at once.
 * (Where programs can be preempted, it is so but for a moment at their begin and end; what both miss is counted.)
 */
KFUNC_PROBE(stand_in_inet_sock_set_state, struct sock *sk, int from, int to)
{
	struct handled *newest;
	struct following *s;
	int zero = 0;
	u64 *count;

	newest = handled.lookup(&zero);
	if (!newest || (newest->socket == identity(sk) && newest->step == step_of(from, to)))
		return 0;
	s = conns.sk_storage_get(sk, 0, 0);
	if (s && s->step == step_of(from, to))
		return 0; /* it was taken: other events came between the two programs */
	preempt_disable();
	take(sk, from, to);
	preempt_enable();
	count = stood_in.lookup(&zero);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

KFUNC_PROBE(tcp_receive_reset, struct sock *sk)
{
	struct following *s = conns.sk_storage_get(sk, 0, 0);

	if (s)
		s->resets_received++;
	return 0;
}

/*
 * sk may be NULL (no socket for the segment) and may be a small request or
 * time-wait socket since Linux 6.10, where it is not to be taken for a sock.
 */
KFUNC_PROBE(tcp_send_reset, struct sock *sk)
{
	struct owner nobody = {};
	struct following *s = NULL;
	struct connection *row;
	struct tcp_sock *tp;
	struct sums *total;

	if (sk && sk->__sk_common.skc_state != TCP_TIME_WAIT && sk->__sk_common.skc_state != TCP_NEW_SYN_RECV &&
	    sk->__sk_common.skc_state != TCP_LISTEN)
		s = conns.sk_storage_get(sk, 0, 0);
	if (!s) {
		total = sums_of(&nobody, 0, DIRECTION_UNKNOWN);
		if (total)
			__sync_fetch_and_add(&total->resets_sent, 1);
		return 0;
	}
	if (!s->ended) {
		s->resets_sent++;
		return 0;
	}
	/* close() with unread data sets CLOSE first and sends the reset after: the row is already written, this amends it. */
	tp = bpf_skc_to_tcp_sock(sk);
	row = tp ? ledger.ringbuf_reserve(sizeof(*row)) : NULL;
	if (row) {
		__builtin_memset(row, 0, sizeof(*row));
		fill(row, sk, tp, s);
		__builtin_memset(&row->born_ns, 0, __builtin_offsetof(struct connection, netns) - 8);
		row->resets_sent = 1;
		row->ended_ns = bpf_ktime_get_boot_ns();
		row->state = TCP_CLOSE;
		row->flags = FLAG_AMENDS;
		ledger.ringbuf_submit(row, BPF_RB_NO_WAKEUP);
		return 0;
	}
	total = sums_of(&s->owner, sk->__sk_common.skc_net->ns.inum, s->direction);
	if (total)
		__sync_fetch_and_add(&total->resets_sent, 1);
	return 0;
}

/* Keep the owner right: the first holder of a socket without one, or a new holder when the owner has let go of it. */
static __always_inline void hold(struct following *s, struct task_struct *task, struct observer *observer)
{
	struct task_struct *leader = task->group_leader;

	if (!leader)
		return;
	if (s->owner.tgid == task->tgid && s->owner.start_ns == leader->start_boottime) {
		if (!named(&s->owner, leader))
			own(&s->owner, task); /* exec in place */
		if (s->rank < RANK_HOLDER)
			s->rank = RANK_HOLDER;
		s->owner_pass = observer->session;
	} else if (s->rank < RANK_HOLDER ||
		   /* Of many holders the oldest: the pass goes by pid, and a child may have a lower one. */
		   (s->rank == RANK_HOLDER && leader->start_boottime < s->owner.start_ns) ||
		   (s->owner_pass && s->owner_pass != observer->session && s->owner_pass != observer->previous)) {
		own(&s->owner, task);
		s->rank = RANK_HOLDER;
		s->owner_pass = observer->session;
	} else if (!s->owner_pass) {
		s->owner_pass = observer->session; /* give the owner one pass to be seen */
	}
}

/*
 * The pass: one row per live TCP socket, whatever number of files refer to it.
 * The kernel runs the program again for the same file when its buffer was too
 * full for the row, so a socket counts as reported only after the write.
 */
BPF_ITER(task_file)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct connection row = {};
	struct observer *observer;
	struct following *s;
	struct tcp_sock *tp;
	struct socket *sock;
	struct sock *sk;
	int zero = 0;

	if (!task || !file)
		return 0;
	observer = observers.lookup(&zero);
	if (!observer)
		return 0;
	if (observer->session != ctx->meta->session_id) {
		observer->previous = observer->session;
		observer->session = ctx->meta->session_id;
		observer->tgid = bpf_get_current_pid_tgid() >> 32;
	}
	sock = sock_from_file(file);
	if (!sock)
		return 0;
	sk = sock->sk;
	/* A protocol number alone says nothing: netlink's 6 is XFRM. */
	if (!sk || sk->sk_protocol != IPPROTO_TCP ||
	    (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6))
		return 0;
	tp = bpf_skc_to_tcp_sock(sk);
	if (!tp || sk->__sk_common.skc_state == TCP_CLOSE)
		return 0;
	s = follow(sk); /* a failure may be counted twice: then the count of losses is too high, never too low */
	if (!s)
		return 0;
	hold(s, task, observer);
	if (s->pass == observer->session)
		return 0;
	if (sk->__sk_common.skc_state == TCP_SYN_RECV && s->direction != DIRECTION_OUT)
		come_in(s);
	note_accept(s, sk);
	fill(&row, sk, tp, s);
	row.state = sk->__sk_common.skc_state;
	if (bpf_seq_write(seq, &row, sizeof(row)))
		return 0;
	s->pass = observer->session;
	s->reported.bytes_sent = row.bytes_sent;
	s->reported.bytes_received = row.bytes_received;
	s->reported.packets_sent = row.packets_sent;
	s->reported.packets_received = row.packets_received;
	s->reported.retransmits = row.retransmits;
	s->reported.resets_sent = row.resets_sent;
	s->reported.resets_received = row.resets_received;
	s->reported.flags = row.flags | REPORTED_SEEN | (row.established_ns ? REPORTED_ESTABLISHED : 0);
	return 0;
}
