// SPDX-License-Identifier: GPL-2.0-only
/*
 * Events of every TCP connection (tp_btf programs), the pass over live sockets
 * (an iterator over the socket storage map), and the walk over the files of all
 * tasks (a task_file iterator), which finds the processes that hold them. No
 * program runs on the send or receive path: the kernel counts bytes and segments
 * in tcp_sock, the programs only read them.
 *
 * kernel_types.h is written at start from the running kernel's BTF and holds
 * only the members used here. Memory is read through BTF-typed pointers, so
 * that the verifier proves each offset; only strings need a helper.
 *
 * All maps and all functions that use a map are in files *.bpf.c, which the
 * loader joins: bcc does not translate map calls in an included file.
 */
#include <kernel_types.h>
#include "connection.h"
#include "tracked_socket.h"
#include "owner.bpf.h"
#include "record.bpf.h"

#define ECONNRESET 104
#define MAX_REFUSAL_NS 1000000000ULL /* a later reset breaks a connection that was in use */
#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */

#ifndef LEDGER_BYTES
#define LEDGER_BYTES (16 << 20)
#endif
#ifndef RECORDS_PER_READ
#define RECORDS_PER_READ 8192
#endif
/* A few milliseconds each: files, and sockets, of which most are idle. */
#define FILES_PER_READ 8192
#define SOCKETS_PER_READ 32768
#ifndef LIVE_BYTES
#define LIVE_BYTES (1 << 21)
#endif
_Static_assert(LIVE_BYTES > RECORDS_PER_READ * (sizeof(struct connection) + 8), "a read fits into `live`");
#ifndef APART_CAPACITY
#define APART_CAPACITY 2048
#endif
#ifndef SUMS_CAPACITY
#define SUMS_CAPACITY 4096
#endif

/*
 * Socket -> struct tracked_socket. The kernel frees an entry together with its
 * socket: no program deletes entries, and a socket's address can be used again
 * at once. BPF_F_CLONE copies a listener's entry to its children. When the
 * kernel has no memory for an entry, it goes to `apart_sockets`. About 256 bytes
 * of kernel memory per socket. bcc's own macro takes no flags.
 */
#define BPF_F_CLONE (1U << 9)
struct tracked_sockets_table_t {
	int key;
	struct tracked_socket leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage"))) struct tracked_sockets_table_t tracked_sockets = {
	.flags = BPF_F_NO_PREALLOC | BPF_F_CLONE,
};
BPF_ANNOTATE_KV_PAIR(tracked_sockets, int, struct tracked_socket);

/*
 * Final records: one per connection, written once at its end, in the order of
 * ends. The daemon reads and removes them at each tick. When full, the record
 * is added to `sums` instead and LOSS_LEDGER_FULL counts it. 216 bytes an
 * entry: 77,672 in 16 MB. A hash map in its place cost 0.5 to 1 us more per
 * connection.
 */
BPF_RINGBUF_OUTPUT(ledger, LEDGER_BYTES / PAGE_SIZE);

/*
 * Records of live sockets. The daemon empties it after each read of the
 * iterator, so it never gets full: a read makes RECORDS_PER_READ records at most.
 */
BPF_RINGBUF_OUTPUT(live, LIVE_BYTES / PAGE_SIZE);

/*
 * Process, network namespace, direction -> totals of the connections that did
 * not fit into the ledger, and of resets that belong to no record. Never
 * cleared: the daemon computes differences, and deletes the entries of ended
 * processes. When full, LOSS_SUMS_FULL counts. About 250 bytes an entry: 1 MB.
 */
BPF_HASH(sums, struct sums_key, struct sums, SUMS_CAPACITY);

/* enum loss -> number of losses since the programs were loaded. No entry is deleted. 40 bytes. */
BPF_ARRAY(losses, u64, LOSS_COUNT);

/*
 * Address of a socket -> its entry, where the kernel has no memory for one in
 * socket storage: an account can fill the option memory of its sockets
 * (net.core.optmem_max) with other options. The iterator over socket storage
 * does not visit these, the walk over files does. The program that handles the
 * end deletes the entry. When full, the connect counts in `sums`. 250 bytes an
 * entry: 0.5 MB.
 */
BPF_HASH(apart_sockets, u64, struct tracked_socket, APART_CAPACITY);

/* An entry that is all zero, and stays so: too large for the stack. 184 bytes. */
BPF_ARRAY(empty_entry, struct tracked_socket, 1);

/* The newest event that inet_sock_set_state handled on this CPU. No entry is deleted. 16 bytes per CPU. */
struct handled_event {
	u64 socket_id;
	u64 transition;
};
BPF_PERCPU_ARRAY(last_handled, struct handled_event, 1);

/* Number of skipped events that the fallback program handled. No entry is deleted. 8 bytes. */
BPF_ARRAY(fallback_events, u64, 1);

/* The reader of the iterators. No entry is deleted. 56 bytes. */
BPF_ARRAY(observers, struct observer, 1);

/* Number of complete passes that the daemon has requested. The other passes leave out idle sockets. 8 bytes. */
BPF_ARRAY(complete_pass, u64, 1);

/* bpf_sock_from_file, by number (include/uapi/linux/bpf.h): bcc's header gives it a type that we do not have. */
static struct socket *(*sock_from_file)(struct file *file) = (void *)162;

/*
 * Newer kernels can preempt a process in the middle of a program on a tracepoint (Linux 7.3; tracepoint_srcu), and skip
 * that program on this CPU until the process runs again. There the program disables preemption with kfuncs. The loader
 * replaces these numbers with the kernel's own.
 */
#ifdef KFUNC_PREEMPT_DISABLE
static void (*preempt_disable)(void) = (void *)KFUNC_PREEMPT_DISABLE;
static void (*preempt_enable)(void) = (void *)KFUNC_PREEMPT_ENABLE;
#else
#define preempt_disable()
#define preempt_enable()
#endif

/*
 * Return the variant of the program: the loader loads some functions more than once, and writes into each program the
 * number of its Probe (watchdog/kernel/programs.py). The verifier leaves out the code of the other variants.
 */
static __always_inline u32 get_variant(void)
{
	u32 variant;

	asm("%0 = %1" : "=r"(variant) : "i"(VARIANT));
	return variant;
}

static __always_inline void count_loss(int loss)
{
	u64 *count = losses.lookup(&loss);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* Return the entry of the socket; NULL: it has none. */
static __always_inline struct tracked_socket *find_tracked_socket(struct sock *sk)
{
	struct tracked_socket *tracked = tracked_sockets.sk_storage_get(sk, 0, 0);
	u64 key = (u64)sk;

	if (tracked)
		return tracked;
	tracked = apart_sockets.lookup(&key);
	return tracked && tracked->cookie == sk->__sk_common.skc_cookie ? tracked : NULL;
}

/* Return the entry in `apart_sockets`, a new one for a new socket; NULL: the map is full. */
static __always_inline struct tracked_socket *get_apart_socket(struct sock *sk)
{
	u64 cookie = bpf_get_socket_cookie(sk);
	struct tracked_socket *tracked, *empty;
	u64 key = (u64)sk;
	int zero = 0;

	tracked = apart_sockets.lookup(&key);
	if (tracked && tracked->cookie == cookie)
		return tracked;
	empty = empty_entry.lookup(&zero);
	if (!empty)
		return NULL;
	apart_sockets.update(&key, empty); /* replaces that of a socket whose end was not seen */
	tracked = apart_sockets.lookup(&key);
	if (!tracked)
		return NULL;
	tracked->cookie = cookie;
	tracked->flags = FLAG_APART;
	return tracked;
}

/* Delete the entry if it is in `apart_sockets`: the kernel does not free it with the socket. */
static __always_inline void drop_apart_entry(struct sock *sk, struct tracked_socket *tracked)
{
	u64 key = (u64)sk;

	if (tracked->flags & FLAG_APART)
		apart_sockets.delete(&key);
}

/* Return the entry of the socket, initialized for a new socket or a listener's child; NULL: no memory. */
static __always_inline struct tracked_socket *get_tracked_socket(struct sock *sk)
{
	struct tracked_socket *tracked = tracked_sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	u64 cookie;

	if (!tracked)
		return get_apart_socket(sk);
	cookie = bpf_get_socket_cookie(sk);
	if (tracked->cookie == cookie)
		return tracked;
	if (tracked->cookie) { /* the listener's entry, copied by sk_clone: only its owner is true for the child */
		__builtin_memset(&tracked->own, 0, sizeof(tracked->own));
		tracked->direction = DIRECTION_IN;
		tracked->owner_rank = tracked->owner.tgid ? RANK_LISTENER : RANK_NONE;
	}
	tracked->cookie = cookie;
	return tracked;
}

static __always_inline struct sums *get_sums(struct owner *owner, u32 netns, u32 direction)
{
	struct sums_key key = {
		.start_ns = owner->start_ns,
		.tgid = owner->tgid,
		.netns = netns,
		.direction = direction,
	};
	struct sums zero = {};
	struct sums *total = sums.lookup(&key);

	if (total) {
		total->owner = *owner; /* its name, user or control group can be new */
		return total;
	}
	zero.owner = *owner;
	sums.insert(&key, &zero); /* when another CPU was first, both use its entry */
	total = sums.lookup(&key);
	if (!total)
		count_loss(LOSS_SUMS_FULL);
	return total;
}

static __always_inline bool is_observer(u32 tgid)
{
	int zero = 0;
	struct observer *observer = observers.lookup(&zero);

	return observer && observer->tgid == tgid;
}

#define STATE(state) (1U << (state))
#define MADE_BY_PROCESS (STATE(TCP_LISTEN) | STATE(TCP_FIN_WAIT1) | STATE(TCP_LAST_ACK))
#define CLOSED_BY_PROCESS (STATE(TCP_ESTABLISHED) | STATE(TCP_CLOSE_WAIT))

/*
 * Return whether the transition is made in the context of the process that uses the socket: by listen, shutdown, close
 * or connect(AF_UNSPEC). Without an error, only close and connect lead from ESTABLISHED and CLOSE_WAIT to CLOSE. A
 * switch would double the time of the verifier with each case.
 */
static __always_inline bool is_made_by_process(struct sock *sk, int from, int to)
{
	u32 closed = (STATE(to & 31) & STATE(TCP_CLOSE)) >> TCP_CLOSE;

	return (STATE(to & 31) & MADE_BY_PROCESS) | (closed * (STATE(from & 31) & CLOSED_BY_PROCESS) * !sk->sk_err);
}

/*
 * Record the current process as owner unless a holder or connector is known.
 * Only for transitions made in process context. A kernel thread is never an
 * owner: it closes sockets that an io_uring held (io_ring_exit_work), or that
 * were lost in a message over a unix socket.
 */
static __always_inline void set_owner_to_current(struct tracked_socket *tracked, struct sock *sk)
{
	struct task_struct *task = current_task();
	bool known = is_owner(&tracked->owner, task);
	bool changed;
	u8 rank;

	if (task->flags & PF_KTHREAD || is_observer(task->tgid) || (!known && tracked->owner_rank >= RANK_HOLDER))
		return;
	rank = get_maker(sk) == task->real_cred ? RANK_MAKER : RANK_HOLDER;
	changed = !known || has_changed(tracked, task);
	if (changed)
		set_socket_owner(tracked, task);
	if (!known)
		tracked->owner_session = 0;
	if (tracked->owner_rank < rank)
		tracked->owner_rank = rank;
	/* The walk over files notes the owners of listeners, while they change nothing, not even in a thread. */
	if (tracked->direction == DIRECTION_IN && rank == RANK_MAKER &&
	    (changed || task->group_leader->real_cred != task->real_cred))
		note_acceptor(task, &tracked->owner);
}

/* Record the process that makes the transition, or accepted the connection that ends, as the owner. */
static __always_inline void find_owner(struct sock *sk, struct tracked_socket *tracked, int from, int to)
{
	bool by_process = is_made_by_process(sk, from, to);

	/* Its executable is known, that of an exiting process, which has no memory any more, is not. */
	if (by_process ? !current_task()->mm : to == TCP_CLOSE)
		set_owner_to_acceptor(tracked, sk);
	if (by_process)
		set_owner_to_current(tracked, sk);
}

static __always_inline void mark_accepted(struct tracked_socket *tracked, struct sock *sk)
{
	/* sock_graft() in accept sets sk_socket; closing clears it only after the state has changed. */
	if (tracked->direction == DIRECTION_IN && !(tracked->flags & FLAG_ACCEPTED) && sk->sk_socket)
		tracked->flags |= FLAG_ACCEPTED;
}

static __always_inline void handle_connect(struct tracked_socket *tracked)
{
	struct reported nothing = {};

	if (tracked->born_ns || tracked->ended) {
		/* The same socket connects again: its counters restarted at 0 (tcp_disconnect). */
		tracked->incarnation++;
		tracked->ended = 0;
		tracked->established_ns = 0;
		tracked->resets_sent = 0;
		tracked->resets_received = 0;
		tracked->reported = nothing;
	}
	tracked->born_ns = bpf_ktime_get_boot_ns();
	tracked->direction = DIRECTION_OUT;
	tracked->flags = FLAG_CONNECT | (tracked->flags & FLAG_APART);
	tracked->attempt_counted = 1;
	set_socket_owner(tracked, current_task());
	tracked->owner_rank = RANK_CONNECTOR;
	tracked->owner_session = 0;
}

static __always_inline void handle_listen(struct tracked_socket *tracked)
{
	struct reported nothing = {};

	if (tracked->ended) { /* it listens again: its drops so far are counted */
		tracked->ended = 0;
		tracked->born_ns = 0;
		tracked->reported = nothing;
	} else if (!tracked->born_ns) {
		tracked->born_ns = bpf_ktime_get_boot_ns(); /* its drops count from now on */
	}
}

/* The final record of a listener tells the daemon that it is gone, and its last drops. */
static __always_inline void handle_listener_end(struct sock *sk, struct tracked_socket *tracked)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct connection *record;

	if (!tp)
		return;
	tracked->ended = 1;
	record = ledger.ringbuf_reserve(sizeof(*record));
	if (!record) {
		count_loss(LOSS_LEDGER_FULL);
		return;
	}
	fill_final_record(record, sk, tp, tracked, TCP_LISTEN, NULL);
	record->state = TCP_LISTEN;
	ledger.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/*
 * With TCP Fast Open a process can accept a child before the handshake ends
 * (tcp_fastopen_create_child): in SYN_RECV it can be read, written and closed.
 */
static __always_inline void mark_inbound(struct tracked_socket *tracked)
{
	u64 now = bpf_ktime_get_boot_ns();

	tracked->direction = DIRECTION_IN;
	if (!tracked->born_ns)
		tracked->born_ns = now;
	if (!tracked->established_ns)
		tracked->established_ns = now;
}

static __always_inline void handle_established(struct tracked_socket *tracked, int from)
{
	if (from == TCP_SYN_RECV && tracked->direction != DIRECTION_OUT) {
		mark_inbound(tracked);
		return;
	}
	tracked->established_ns = bpf_ktime_get_boot_ns();
	if (!tracked->direction)
		tracked->direction = DIRECTION_OUT; /* its SYN was sent before the programs were attached */
}

static __always_inline void handle_closing(struct tracked_socket *tracked, int from)
{
	if (from == TCP_SYN_RECV && tracked->direction != DIRECTION_OUT)
		mark_inbound(tracked);
	/*
	 * Only an accepted connection closes in these steps: a connection still queued at a closing listener goes to
	 * CLOSE at once (inet_child_forget). sk_socket is no test: MPTCP's subflows lose it first (mptcp_close).
	 */
	if (tracked->direction == DIRECTION_IN)
		tracked->flags |= FLAG_ACCEPTED;
}

/* Write the final record to the ledger, or to `sums`. `attempt`: of one that failed before its first packet, or NULL. */
static __always_inline void write_final_record(struct sock *sk, struct tcp_sock *tp, struct tracked_socket *tracked,
					       int from, struct attempt *attempt)
{
	struct connection *record = ledger.ringbuf_reserve(sizeof(*record));
	struct sums *total;

	if (record) {
		fill_final_record(record, sk, tp, tracked, from, attempt);
		ledger.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
		return;
	}
	count_loss(LOSS_LEDGER_FULL);
	total = get_sums(&tracked->owner, sk->__sk_common.skc_net->ns.inum, tracked->direction);
	if (total)
		add_to_sums(total, sk, tp, tracked);
}

static __always_inline void handle_end(struct sock *sk, struct tracked_socket *tracked, int from)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);

	if (!tp)
		return;
	mark_accepted(tracked, sk);
	/*
	 * Never a connection: when two CPUs handle two last ACKs of one handshake at once, each creates a child, and the
	 * second child is dropped (tcp_check_req, inet_csk_complete_hashdance). No process and no peer ever uses it.
	 */
	if (from == TCP_SYN_RECV && !tracked->established_ns && !(tracked->flags & ~FLAG_APART) && !tp->bytes_received)
		return;
	if (!tracked->established_ns && (from == TCP_SYN_SENT || from == TCP_SYN_RECV))
		tracked->flags |= FLAG_FAILED;
	/*
	 * No backend behind the balancer, accept queue overflow, access refused: established, and reset soon after,
	 * before a byte was received or acknowledged (bytes_acked counts the SYN). A later reset breaks a connection
	 * that worked, like a stream in one direction, or an idle one.
	 */
	if (from == TCP_ESTABLISHED && sk->sk_err == ECONNRESET && tracked->direction == DIRECTION_OUT &&
	    tracked->born_ns && !tp->bytes_received && tp->bytes_acked <= 1 &&
	    bpf_ktime_get_boot_ns() - tracked->established_ns <= MAX_REFUSAL_NS)
		tracked->flags |= FLAG_FAILED;
	if (from == TCP_SYN_RECV && tp->bytes_received && !tracked->born_ns)
		tracked->born_ns = bpf_ktime_get_boot_ns(); /* a fast open that no process accepted */
	tracked->ended = 1;
	write_final_record(sk, tp, tracked, from, NULL);
}

/* Count a transition of a socket without an entry: a connect for its process, others as lost. */
static __always_inline void count_untracked(struct sock *sk, int to)
{
	struct owner owner = {};
	struct sums *total;

	if (to != TCP_SYN_SENT) {
		count_loss(LOSS_STORAGE);
		return;
	}
	set_owner(&owner, current_task());
	total = get_sums(&owner, sk->__sk_common.skc_net->ns.inum, DIRECTION_OUT);
	if (!total)
		return;
	__sync_fetch_and_add(&total->connects, 1);
	__sync_fetch_and_add(&total->lost_connections, 1);
}

static __always_inline u16 encode_transition(int from, int to)
{
	return from << 8 | to;
}

static __always_inline void dispatch_transition(struct sock *sk, struct tracked_socket *tracked, int from, int to)
{
	switch (to) {
	case TCP_SYN_SENT:
		handle_connect(tracked);
		break;
	case TCP_LISTEN:
		handle_listen(tracked);
		break;
	case TCP_ESTABLISHED:
		handle_established(tracked, from);
		break;
	case TCP_FIN_WAIT1:
		if (from == TCP_ESTABLISHED || from == TCP_SYN_RECV)
			handle_closing(tracked, from);
		break;
	case TCP_LAST_ACK:
		handle_closing(tracked, from);
		break;
	case TCP_CLOSE:
		if (from == TCP_LISTEN)
			handle_listener_end(sk, tracked);
		else
			handle_end(sk, tracked, from);
		break;
	}
}

/*
 * Handle a state transition, and store it with the socket. A child that a listener has just created still has the
 * listener's entry, and its cookie is not its own yet (inet_csk_clone_lock).
 */
static __always_inline void handle_transition(struct sock *sk, int from, int to)
{
	struct tracked_socket *tracked;

	/* CLOSE to CLOSE: a socket that never left CLOSE. MPTCP's own sockets, SCTP and DCCP also come here. */
	if (!is_tcp(sk) || (from == TCP_CLOSE && to == TCP_CLOSE))
		return;
	tracked = to == TCP_SYN_RECV ? tracked_sockets.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE)
				     : get_tracked_socket(sk);
	if (!tracked) {
		if (to != TCP_SYN_RECV) /* the next transition of a child makes its entry */
			count_untracked(sk, to);
		return;
	}
	if (is_in_sockmap(sk)) /* noted at each chance: close() takes the socket out before its last transitions */
		tracked->flags |= FLAG_SOCKMAP;
	find_owner(sk, tracked, from, to);
	dispatch_transition(sk, tracked, from, to);
	tracked->last_transition = encode_transition(from, to);
	if (to != TCP_SYN_RECV)
		tracked->address = (u32)(u64)sk; /* last: from here on the pass reports the socket */
	if (to == TCP_CLOSE)
		drop_apart_entry(sk, tracked);
}

/* Return a number unique to the socket: its cookie, which is never reused, or its address before it has a cookie. */
static __always_inline u64 get_socket_id(struct sock *sk)
{
	return sk->__sk_common.skc_cookie ? sk->__sk_common.skc_cookie : (u64)sk;
}

/* Return whether the newest event on this CPU is this transition of the socket. */
static __always_inline bool is_newest_event(struct sock *sk, int from, int to)
{
	int zero = 0;
	struct handled_event *newest = last_handled.lookup(&zero);

	return newest && newest->socket_id == get_socket_id(sk) && newest->transition == encode_transition(from, to);
}

/* Return whether the first program has handled the transition. */
static __always_inline bool is_handled(struct sock *sk, int from, int to)
{
	struct tracked_socket *tracked;

	if (is_newest_event(sk, from, to))
		return 1;
	tracked = find_tracked_socket(sk);
	if (tracked) /* other events can come between the two programs */
		return tracked->last_transition == encode_transition(from, to);
	return to == TCP_CLOSE && from != TCP_CLOSE && is_tcp(sk); /* its entry was in `apart_sockets` */
}

static __always_inline void note_newest_event(struct sock *sk, int from, int to)
{
	int zero = 0;
	struct handled_event *newest = last_handled.lookup(&zero);

	if (!newest)
		return;
	newest->socket_id = get_socket_id(sk);
	newest->transition = encode_transition(from, to);
}

static __always_inline void count_fallback_event(void)
{
	int zero = 0;
	u64 *count = fallback_events.lookup(&zero);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/*
 * The loader loads this code twice. The second program, the fallback (variant 1), runs after the first one for each
 * event, and handles the events for which the kernel skipped the first. The kernel does not run a program again on a CPU
 * where it is already running (bpf_trace_run): when an interrupt comes in the middle of the program, and packets are
 * handled at the end of the interrupt, all their events would be lost. There are only two levels, a process and one
 * softirq above it, so one of the two programs is always free; and no socket is handled at both levels at once. (Where
 * programs can be preempted, this is true except for a moment at their start and end; events that both programs miss are
 * counted.)
 *
 * The fallback has its own copy, and no tail call to the first program: since Linux 6.13 a program can have a stack of
 * its own on each CPU, and only the guard that skips the program keeps two runs from using it at once.
 */
KFUNC_PROBE(inet_sock_set_state, struct sock *sk, int from, int to)
{
	bool is_fallback = get_variant();

	if (is_fallback && is_handled(sk, from, to))
		return 0;
	preempt_disable();
	handle_transition(sk, from, to);
	if (is_fallback)
		count_fallback_event();
	else
		note_newest_event(sk, from, to);
	preempt_enable();
	return 0;
}

/*
 * End a read of the iterator after `max_visits` objects or RECORDS_PER_READ records: bpf_seq_read returns as soon as as many bytes are there as
 * the reader asked for. Without a mark it would go on for 1,000,000 objects.
 */
static __always_inline void mark_end_of_read(struct seq_file *seq, struct observer *observer, u32 max_visits)
{
	u64 mark = 0;

	observer->visits++;
	if (observer->visits < max_visits && observer->records < RECORDS_PER_READ)
		return;
	if (bpf_seq_write(seq, &mark, sizeof(mark)))
		return;
	observer->visits = 0;
	observer->records = 0;
}

/* Return the two values of a queue that can change without a segment. */
static __always_inline void get_positions(struct sock *sk, struct tcp_sock *tp, u32 *send, u32 *receive)
{
	bool listens = sk->__sk_common.skc_state == TCP_LISTEN;

	*send = listens ? sk->sk_max_ack_backlog : tp->write_seq;
	*receive = listens ? sk->sk_ack_backlog : tp->copied_seq;
}

/*
 * Return whether the daemon has not read the present values yet. Bytes, retransmissions, round-trip times and
 * acknowledgements change only with the number of segments.
 */
static __always_inline bool is_changed(struct sock *sk, struct tcp_sock *tp, struct tracked_socket *tracked)
{
	struct reported *reported = &tracked->reported;
	u8 state = sk->__sk_common.skc_state;
	u32 send, receive;

	get_positions(sk, tp, &send, &receive);
	return reported->packets_sent != tp->segs_out || reported->packets_received != tp->segs_in ||
	       reported->send_position != send || reported->receive_position != receive ||
	       (reported->summary & ~(REPORTED_SEEN | REPORTED_ESTABLISHED)) !=
		       get_summary(tracked->flags, tracked->direction, state) ||
	       reported->owner_version != tracked->owner_version || reported->resets_sent != tracked->resets_sent ||
	       reported->resets_received != tracked->resets_received ||
	       (state == TCP_LISTEN &&
		(reported->retransmits != sk->sk_drops ||
		 reported->half_open != ((struct inet_connection_sock *)tp)->icsk_accept_queue.qlen));
}

static __always_inline void note_reported(struct sock *sk, struct tcp_sock *tp, struct tracked_socket *tracked,
					  struct connection *record)
{
	struct reported *reported = &tracked->reported;

	reported->bytes_sent = record->bytes_sent;
	reported->bytes_received = record->bytes_received;
	reported->packets_sent = record->packets_sent;
	reported->packets_received = record->packets_received;
	reported->retransmits = record->state == TCP_LISTEN ? record->drops : record->retransmits;
	reported->resets_sent = record->resets_sent;
	reported->resets_received = record->resets_received;
	reported->summary = get_summary(record->flags, record->direction, record->state) | REPORTED_SEEN |
			    (record->established_ns ? REPORTED_ESTABLISHED : 0);
	reported->half_open = record->half_open;
}

/*
 * Hand the values of a live connection or listener to the daemon, once in each session of the iterator, unless it has
 * read them in `complete_session` or later and they are the same. is_changed()'s values are noted first: a change on
 * another CPU meanwhile is handed over in the next session.
 */
static __always_inline void report(struct sock *sk, struct tracked_socket *tracked, struct observer *observer,
				   u32 session, u32 complete_session)
{
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(sk);
	struct connection *record;

	if (!tp || sk->__sk_common.skc_state == TCP_CLOSE || tracked->reported.session == session)
		return;
	mark_accepted(tracked, sk);
	if (is_in_sockmap(sk))
		tracked->flags |= FLAG_SOCKMAP;
	set_owner_to_acceptor(tracked, sk); /* until the walk over files reaches its holder */
	if (tracked->reported.session >= complete_session && !is_changed(sk, tp, tracked))
		return;
	record = live.ringbuf_reserve(sizeof(*record));
	if (!record)
		return;
	__builtin_memset(record, 0, sizeof(*record));
	tracked->reported.owner_version = tracked->owner_version;
	get_positions(sk, tp, &tracked->reported.send_position, &tracked->reported.receive_position);
	barrier();
	fill_record(record, sk, tp, tracked);
	record->state = sk->__sk_common.skc_state;
	tracked->reported.session = session;
	note_reported(sk, tp, tracked, record);
	observer->records++;
	live.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/*
 * The walk over the files of all tasks. It finds the processes that hold the sockets, and makes the entries of sockets
 * that are older than the programs. The daemon reads it in slices. Where the kernel has no iterator over the socket
 * storage map (REPORT_FILES), it also reports the sockets.
 */
BPF_ITER(task_file)
{
	struct seq_file *seq = ctx->meta->seq;
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct observer *observer;
	struct tracked_socket *tracked;
	struct socket *sock;
	struct sock *sk;
	int zero = 0;

	if (!task || !file)
		return 0;
	observer = observers.lookup(&zero);
	if (!observer)
		return 0;
	mark_end_of_read(seq, observer, FILES_PER_READ);
	if (observer->session != ctx->meta->session_id) {
		observer->previous_session = observer->session;
		observer->session = ctx->meta->session_id;
		observer->tgid = bpf_get_current_pid_tgid() >> 32;
	}
	sock = sock_from_file(file);
	if (!sock)
		return 0;
	sk = sock->sk;
	if (sk && sk->sk_type == SOCK_STREAM && sk->__sk_common.skc_state == TCP_LISTEN &&
	    (sk->sk_protocol == IPPROTO_TCP || sk->sk_protocol == IPPROTO_MPTCP))
		note_acceptor(task, NULL);
	/* The family too: protocol 6 of netlink is XFRM. */
	if (!sk || !is_tcp(sk) || (sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6))
		return 0;
	if (sk->__sk_common.skc_state == TCP_CLOSE)
		return 0;
	tracked = get_tracked_socket(sk);
	if (!tracked) {
		count_loss(LOSS_STORAGE); /* at each visit: the loss count is never too low */
		return 0;
	}
	update_owner(tracked, task, get_rank_of_holder(task, sk), observer);
	if (sk->__sk_common.skc_state == TCP_SYN_RECV && tracked->direction != DIRECTION_OUT)
		mark_inbound(tracked);
	/* Older than the programs: a child keeps its listener's limit of the accept queue, a client has 0. */
	if (!tracked->direction && sk->__sk_common.skc_state != TCP_LISTEN && sk->sk_max_ack_backlog)
		tracked->direction = DIRECTION_IN;
	tracked->address = (u32)(u64)sk;
#ifdef REPORT_FILES
	report(sk, tracked, observer, ctx->meta->session_id, ctx->meta->session_id);
#else
	if (tracked->flags & FLAG_APART)
		report(sk, tracked, observer, ctx->meta->session_id, ctx->meta->session_id);
#endif
	return 0;
}

#ifndef REPORT_FILES
/*
 * The pass: one record per live TCP socket that the programs follow, also without a file: MPTCP's subflows, connections
 * in an accept queue, sockets of the kernel or of an io_uring alone. An entry without its own address is that of a child
 * whose handshake has not ended, or that is still being copied from its listener.
 */
BPF_ITER(bpf_sk_storage_map)
{
	struct tracked_socket *tracked = ctx->value;
	struct sock *sk = ctx->sk;
	struct observer *observer;
	u64 *request;
	int zero = 0;

	if (!sk || !tracked)
		return 0;
	observer = observers.lookup(&zero);
	if (!observer)
		return 0;
	mark_end_of_read(ctx->meta->seq, observer, SOCKETS_PER_READ);
	request = complete_pass.lookup(&zero);
	if (request && observer->complete_request != *request) {
		observer->complete_request = *request;
		observer->complete_session = ctx->meta->session_id;
	}
	/* Through memory: the verifier lets no arithmetic cut a pointer. */
	*(volatile u64 *)&observer->address = (u64)sk;
	if (tracked->address != *(volatile u32 *)&observer->address || tracked->ended)
		return 0; /* `ended`: the final record is written */
	report(sk, tracked, observer, ctx->meta->session_id, observer->complete_session);
	return 0;
}
#endif
