/* SPDX-License-Identifier: GPL-2.0-only */
/* The owner of a socket: taken from a task, and corrected by the walk over files. No map is used here. */
#pragma once

#include "tracked_socket.h"

/*
 * The single reader of the iterators: the session of its walk over files, the
 * session before, and its tgid in the initial pid namespace. The tgid is needed
 * because the reader can drop the last reference to a file that its owner closed
 * during the walk. `visits`: objects visited since the last mark.
 */
struct observer {
	u64 session;
	u64 previous_session;
	u32 tgid;
	u32 visits;
};

/* bpf_get_current_task_btf, by number (include/uapi/linux/bpf.h): bcc's header gives it a type that we do not have. */
static struct task_struct *(*current_task)(void) = (void *)158;

/* Return whether the owner has the same comm as the main thread `leader` has now. */
static __always_inline bool has_same_comm(struct owner *owner, struct task_struct *leader)
{
	return *(u64 *)owner->comm == *(u64 *)leader->comm && *(u64 *)(owner->comm + 8) == *(u64 *)(leader->comm + 8);
}

/* Return the id of the control group (v2) of the process; 0 on hosts without them. */
static __always_inline u64 get_cgroup_id(struct task_struct *task)
{
	struct css_set *cgroups = task->cgroups;

	return cgroups && cgroups->dfl_cgrp && cgroups->dfl_cgrp->kn ? cgroups->dfl_cgrp->kn->id : 0;
}

/* Return whether `owner` is the process of `task`. */
static __always_inline bool is_owner(struct owner *owner, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	return owner->tgid == task->tgid && leader && owner->start_ns == leader->start_boottime;
}

/* Return whether `owner`, the process of `task`, has the name, user and control group that the process has now. */
static __always_inline bool is_current(struct owner *owner, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	return leader && has_same_comm(owner, leader) && leader->real_cred && owner->uid == leader->real_cred->euid &&
	       owner->cgroup_id == get_cgroup_id(leader);
}

/*
 * Set `owner` to the process of `task` as it is now. Its user is the effective user of the main thread, as in ps and
 * /proc/PID/status.
 */
static __always_inline void set_owner(struct owner *owner, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct mm_struct *mm = task->mm;
	bool same_comm = 0;
	struct file *exe;

	owner->tgid = task->tgid;
	if (leader) {
		same_comm = has_same_comm(owner, leader);
		owner->start_ns = leader->start_boottime;
		owner->cgroup_id = get_cgroup_id(leader);
		__builtin_memcpy(owner->comm, leader->comm, COMM_LEN);
		if (leader->real_cred)
			owner->uid = leader->real_cred->euid;
	}
	if (!mm && same_comm)
		return; /* an exiting task releases its memory before its files: the recorded executable is still right */
	__builtin_memset(owner->exe, 0, EXE_LEN);
	if (!mm)
		return;
	exe = mm->exe_file;
	if (exe && exe->f_path.dentry)
		bpf_probe_read_kernel_str(owner->exe, EXE_LEN, exe->f_path.dentry->d_name.name);
}

static __always_inline void set_socket_owner(struct tracked_socket *tracked, struct task_struct *task, u8 rank)
{
	struct task_struct *leader = task->group_leader;

	set_owner(&tracked->owner, task);
	tracked->owner_exec_id = leader ? leader->self_exec_id : 0;
	tracked->owner_rank = rank;
}

/*
 * Renew the recorded facts of the owner, the process of `task`, if it changed them: exec, prctl, setuid, cgroup. Return
 * whether it did.
 */
static __always_inline bool renew_owner(struct tracked_socket *tracked, struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;

	if (is_current(&tracked->owner, task) && leader && tracked->owner_exec_id == leader->self_exec_id)
		return 0;
	set_socket_owner(tracked, task, tracked->owner_rank);
	return 1;
}

/*
 * Update the owner from `task`, which holds a file of the socket; `rank`: RANK_HOLDER or RANK_MAKER. The first holder
 * becomes the owner of a socket without one, the maker replaces other holders, and a new holder replaces an owner that
 * no longer holds the socket.
 */
static __always_inline void update_owner(struct tracked_socket *tracked, struct task_struct *task, u8 rank,
					 struct observer *observer)
{
	struct task_struct *leader = task->group_leader;

	if (!leader)
		return;
	if (is_owner(&tracked->owner, task)) {
		renew_owner(tracked, task);
		if (tracked->owner_rank < rank)
			tracked->owner_rank = rank;
		tracked->owner_session = observer->session;
	} else if (tracked->owner_rank < rank ||
		   /* Of several holders, the oldest: the pass is ordered by pid, and a child can have a lower pid. */
		   (tracked->owner_rank == RANK_HOLDER && leader->start_boottime < tracked->owner.start_ns) ||
		   (tracked->owner_session && tracked->owner_session != observer->session &&
		    tracked->owner_session != observer->previous_session)) {
		set_socket_owner(tracked, task, rank);
		tracked->owner_session = observer->session;
	} else if (!tracked->owner_session) {
		tracked->owner_session = observer->session; /* give the owner one pass to be seen */
	}
}
