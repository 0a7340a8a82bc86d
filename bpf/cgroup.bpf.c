// SPDX-License-Identifier: GPL-2.0-only
/*
 * Control groups (v2), reported when they are made: the path of a group is
 * known although the group is gone before the daemon reads the connections of
 * its processes. Groups of v2 are never renamed, and no id is used twice.
 */
#define HOST_CGROUP_NAMESPACE 0xEFFFFFFBU /* include/linux/proc_ns.h, PROC_CGROUP_INIT_INO */
#define MAKER_LEVEL 2 /* level 1 has slices, level 2 services, containers and the slices of users */
#define MAX_GROUPS_PER_SECOND 64 /* of each maker that is not the host's root */
#define SECOND_NS 1000000000ULL

#ifndef CGROUPS_BYTES
#define CGROUPS_BYTES (1 << 19)
#endif

/*
 * New control groups. The daemon reads and removes them at each tick. When
 * full, a new group is not reported, and the daemon finds its path while the
 * group exists. 288 bytes an entry: 1,820 in 512 KB.
 */
BPF_RINGBUF_OUTPUT(cgroups, CGROUPS_BYTES / PAGE_SIZE);

/* Number of groups that a maker has made in a second. */
struct cgroup_maker {
	u64 second_ns;
	u64 count;
};

/*
 * Id of a control group of level 2 -> groups made by the processes in it: users
 * and containers to which a group is delegated can make any number. No program
 * deletes entries: when full, the least recently used one goes, and its count
 * begins anew. About 90 bytes an entry: 90 KB.
 */
BPF_TABLE("lru_hash", u64, struct cgroup_maker, cgroup_makers, 1024);

/* bpf_get_current_ancestor_cgroup_id, by number (include/uapi/linux/bpf.h): not every bcc has it. */
static u64 (*current_ancestor_cgroup_id)(int level) = (void *)123;

/* Return whether the task runs as root in the cgroup namespace of the host, as systemd and the container runtimes do. */
static __always_inline bool is_host_root(struct task_struct *task)
{
	struct nsproxy *namespaces = task->nsproxy;

	return !task->real_cred->euid && namespaces && namespaces->cgroup_ns &&
	       namespaces->cgroup_ns->ns.inum == HOST_CGROUP_NAMESPACE;
}

/* Count one more group of the current process; return whether its maker has made more than the limit in this second. */
static __always_inline bool exceeds_limit(void)
{
	u64 id = current_ancestor_cgroup_id(MAKER_LEVEL);
	struct cgroup_maker *maker = cgroup_makers.lookup(&id);
	struct cgroup_maker first = {.second_ns = bpf_ktime_get_boot_ns(), .count = 1};

	if (!maker || first.second_ns - maker->second_ns >= SECOND_NS) {
		cgroup_makers.update(&id, &first);
		return 0;
	}
	return __sync_fetch_and_add(&maker->count, 1) >= MAX_GROUPS_PER_SECOND;
}

KFUNC_PROBE(cgroup_mkdir, struct cgroup *group)
{
	struct task_struct *task = current_task();
	struct cgroup_subsys_state *parent = group->self.parent;
	struct cgroup_record *record;

	if (group->root->hierarchy_id || !group->kn || !parent || !parent->cgroup->kn)
		return 0; /* of v1 */
	if (!is_host_root(task) && exceeds_limit())
		return 0;
	record = cgroups.ringbuf_reserve(sizeof(*record));
	if (!record)
		return 0;
	__builtin_memset(record, 0, sizeof(*record));
	record->id = group->kn->id;
	record->parent_id = parent->cgroup->kn->id;
	record->uid = task->real_cred->euid;
	bpf_probe_read_kernel_str(record->name, CGROUP_NAME_LEN, group->kn->name);
	cgroups.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	return 0;
}
