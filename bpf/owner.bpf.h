/* SPDX-License-Identifier: GPL-2.0-only */
/* The owner of a socket: taken from a task, and corrected by the walk over files. No map is used here. */
#pragma once

#include "tracked_socket.h"

/*
 * The single reader of the iterators: the session of its walk over files, the
 * session before, and its tgid in the initial pid namespace. The tgid is needed
 * because the reader can drop the last reference to a file that its owner closed
 * during the walk. `visits`, `records`: objects visited
 * and records made since the last mark.
 */
struct observer {
	u64 session;
	u64 previous_session;
	u64 complete_session; /* of the newest complete pass over sockets */
	u64 complete_request; /* the request that it answered, see `complete_pass` */
	u32 tgid;
	u32 visits;
	u32 records;
	u32 pad;
	u64 address; /* of the socket that the pass visits */
};

/* bpf_get_current_task_btf, by number (include/uapi/linux/bpf.h): bcc's header gives it a type that we do not have. */
static struct task_struct *(*current_task)(void) = (void *)158;

/*
 * Loads through a typed pointer that is NULL give 0 (BPF_PROBE_MEM), and comparisons are joined without branches: each
 * branch doubles the paths that the verifier follows through the rest of a program, and the time that it takes.
 */

/* Return 0 if the owner has the same comm as the main thread `leader` has now. */
static __always_inline u64 compare_comm(struct owner *owner, struct task_struct *leader)
{
	return (*(u64 *)owner->comm ^ *(u64 *)leader->comm) | (*(u64 *)(owner->comm + 8) ^ *(u64 *)(leader->comm + 8));
}

/* Return the id of the control group (v2) of the process; 0 on hosts without them. */
static __always_inline u64 get_cgroup_id(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id;
}

/* Return whether `owner` is the process of `task`. */
static __always_inline bool is_owner(struct owner *owner, struct task_struct *task)
{
	return !((owner->tgid ^ (u32)task->tgid) | (owner->start_ns ^ task->group_leader->start_boottime));
}

/* Return 0 if `owner`, the process of `task`, has the name, user and control group that the process has now. */
static __always_inline u64 compare_facts(struct owner *owner, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	return compare_comm(owner, leader) | (owner->uid ^ leader->real_cred->euid) |
	       (owner->cgroup_id ^ get_cgroup_id(leader));
}

/*
 * Set `owner` to the process of `task` as it is now. Its user is the effective user of the main thread, as in ps and
 * /proc/PID/status.
 */
static __always_inline void set_owner(struct owner *owner, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct mm_struct *mm = task->mm;
	u64 renamed = compare_comm(owner, leader);
	struct file *exe;

	owner->tgid = task->tgid;
	owner->start_ns = leader->start_boottime;
	owner->cgroup_id = get_cgroup_id(leader);
	owner->uid = leader->real_cred->euid;
	__builtin_memcpy(owner->comm, leader->comm, COMM_LEN);
	if (!mm && !renamed)
		return; /* an exiting task releases its memory before its files: the recorded executable is still right */
	__builtin_memset(owner->exe, 0, EXE_LEN);
	if (!mm)
		return;
	exe = mm->exe_file;
	if (exe)
		bpf_probe_read_kernel_str(owner->exe, EXE_LEN, exe->f_path.dentry->d_name.name);
}

/* A pass on another CPU sees by the version that its copy of the owner is not whole. */
static __always_inline void begin_owner_change(struct tracked_socket *tracked)
{
	tracked->owner_version++;
	barrier();
}

static __always_inline void end_owner_change(struct tracked_socket *tracked)
{
	barrier();
	tracked->owner_version++;
}

/* Make the process of `task` the owner. */
static __always_inline void set_socket_owner(struct tracked_socket *tracked, struct task_struct *task)
{
	begin_owner_change(tracked);
	set_owner(&tracked->owner, task);
	end_owner_change(tracked);
	tracked->owner_exec_id = task->group_leader->self_exec_id;
}

/* Return whether the owner, the process of `task`, changed its recorded facts: by exec, prctl, setuid, a new cgroup. */
static __always_inline bool has_changed(struct tracked_socket *tracked, struct task_struct *task)
{
	return compare_facts(&tracked->owner, task) | (tracked->owner_exec_id ^ (u32)task->group_leader->self_exec_id);
}

/*
 * Update the owner from `task`, which holds a file of the socket; `rank`: RANK_HOLDER or RANK_MAKER. The first holder
 * becomes the owner of a socket without one, the maker replaces other holders, and a new holder replaces an owner that
 * no longer holds the socket.
 */
static __always_inline void update_owner(struct tracked_socket *tracked, struct task_struct *task, u8 rank,
					 struct observer *observer)
{
	bool known = is_owner(&tracked->owner, task);

	if (known) {
		if (tracked->owner_rank < rank)
			tracked->owner_rank = rank;
	} else if (tracked->owner_rank < rank ||
		   /* Of several holders, the oldest: the pass is ordered by pid, and a child can have a lower pid. */
		   (tracked->owner_rank == RANK_HOLDER &&
		    task->group_leader->start_boottime < tracked->owner.start_ns) ||
		   (tracked->owner_session && tracked->owner_session != (u32)observer->session &&
		    tracked->owner_session != (u32)observer->previous_session)) {
		tracked->owner_rank = rank;
	} else {
		if (!tracked->owner_session)
			tracked->owner_session = observer->session; /* give the owner one pass to be seen */
		return;
	}
	tracked->owner_session = observer->session;
	if (!known || has_changed(tracked, task))
		set_socket_owner(tracked, task);
}
