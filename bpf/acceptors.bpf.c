// SPDX-License-Identifier: GPL-2.0-only
/*
 * The process that accepted a connection, found without a walk over files: for
 * connections that the peer resets before any walk has seen who holds them, and
 * for those that no walk has reached yet. Otherwise they would belong to the
 * maker of the listener (systemd, the master of a prefork server).
 *
 * accept gives the new file the credentials of its caller (f_cred), and each
 * process has credentials of its own: fork, exec and setuid make new ones
 * (kernel/cred.c). The address of the credentials identifies the process.
 */
#include <kernel_types.h>
#include "tracked_socket.h"
#include "owner.bpf.h"

/* A process that accepts connections. `task`: address of the task_struct of its thread. */
struct acceptor {
	u64 task;
	struct owner owner;
};

/*
 * Address of the credentials -> the process. Processes that hold a listener, or
 * that closed a connection which they had accepted. No program deletes entries:
 * when full, the least recently used one goes, and its process is noted again
 * by the next walk over files. Entries of ended processes stay, and are not
 * used (find_acceptor). About 160 bytes an entry: 640 kB.
 */
BPF_TABLE("lru_hash", u64, struct acceptor, acceptors, 4096);

/* Return the credentials of the process that made the socket's file, by address; 0: no file, as before accept. */
static __always_inline const struct cred *get_maker(struct sock *sk)
{
	return sk->sk_socket->file->f_cred;
}

/* Note the process of `task` as one that accepts connections, or renew its facts. `owner`: its facts, or NULL. */
static __always_inline void note_acceptor(struct task_struct *task, struct owner *owner)
{
	u64 key = (u64)task->real_cred;
	struct acceptor *known = acceptors.lookup(&key);
	struct acceptor acceptor = {};

	if (known && known->task == (u64)task && is_owner(&known->owner, task) && !compare_facts(&known->owner, task))
		return;
	acceptor.task = (u64)task;
	if (owner)
		acceptor.owner = *owner;
	else
		set_owner(&acceptor.owner, task);
	acceptors.update(&key, &acceptor);
}

/*
 * Return the process whose credentials are at the address `maker`, which a file uses; NULL: not known. The entry can be
 * that of another process, which had credentials at this address before. That one has given them up: its task_struct
 * has other credentials now, or NULL (exit_creds), or is the memory of another process.
 */
static __always_inline struct acceptor *find_acceptor(const struct cred *maker)
{
	u64 key = (u64)maker, now = 0;
	struct acceptor *acceptor = acceptors.lookup(&key);
	u32 tgid = 0;

	if (!acceptor)
		return NULL;
	bpf_probe_read_kernel(&now, sizeof(now),
			      (void *)acceptor->task + __builtin_offsetof(struct task_struct, real_cred));
	bpf_probe_read_kernel(&tgid, sizeof(tgid),
			      (void *)acceptor->task + __builtin_offsetof(struct task_struct, tgid));
	return now == key && tgid == acceptor->owner.tgid ? acceptor : NULL;
}

/*
 * Set the owner of an accepted connection that nobody was seen holding to the process that accepted it. If that process
 * is not known, the owner of the listener stays, with the user who accepted.
 */
static __always_inline void set_owner_to_acceptor(struct tracked_socket *tracked, struct sock *sk)
{
	const struct cred *maker;
	struct acceptor *acceptor;

	if (tracked->direction != DIRECTION_IN || tracked->owner_rank > RANK_LISTENER)
		return;
	maker = get_maker(sk);
	if (!maker)
		return;
	acceptor = find_acceptor(maker);
	if (acceptor) {
		begin_owner_change(tracked);
		tracked->owner = acceptor->owner;
		end_owner_change(tracked);
		tracked->owner_rank = RANK_ACCEPTOR;
	} else if (tracked->owner.tgid && tracked->owner.uid != maker->euid) {
		begin_owner_change(tracked);
		tracked->owner.uid = maker->euid;
		end_owner_change(tracked);
	}
}

/*
 * Return the rank of the process of `task`, which holds a file of the socket. It made the file if it has the file's
 * credentials, or if one of its threads has them: a thread can change its credentials alone.
 */
static __always_inline u8 get_rank_of_holder(struct task_struct *task, struct sock *sk)
{
	const struct cred *maker = get_maker(sk);
	struct acceptor *acceptor;

	if (!maker)
		return RANK_HOLDER;
	if (maker == task->real_cred)
		return RANK_MAKER;
	acceptor = find_acceptor(maker);
	return acceptor && is_owner(&acceptor->owner, task) ? RANK_MAKER : RANK_HOLDER;
}
