// SPDX-License-Identifier: GPL-2.0-only
/*
 * The file that a process executes: path, device, inode, and the users that can change it.
 * The daemon asks for one process when an alert needs evidence, by an iterator
 * over tasks that visits that task alone (since Linux 6.1). A process chooses
 * its name and its command line, and not these facts. /proc/PID/exe has the
 * path too, but only for accounts that may trace the process.
 */
#define MAX_FOLDERS 32 /* from the file up to the root of its mount */
#define WRITABLE_BY_OTHERS 02

/* The file to hand over: too large for the stack. The daemon reads the iterator from one thread. 4.2 kB. */
BPF_ARRAY(executable_record, struct executable, 1);

/* bpf_d_path, by number (include/uapi/linux/bpf.h): iterators may call it (Linux 5.10), and bcc has another type. */
static long (*get_path)(struct path *path, char *text, u32 size) = (void *)147;

/* Note the nearest folder of the file that another user than root can change, up to the root of its mount. */
static __always_inline void find_writable_folder(struct executable *record, struct dentry *entry)
{
	struct dentry *parent;
	struct inode *folder;

	for (int depth = 0; depth < MAX_FOLDERS; depth++) {
		parent = entry->d_parent;
		if (parent == entry)
			return;
		entry = parent;
		folder = entry->d_inode;
		record->folder_uid = folder->i_uid;
		record->folder_mode = folder->i_mode;
		if (folder->i_uid || folder->i_mode & WRITABLE_BY_OTHERS)
			return;
	}
}

BPF_ITER(task)
{
	struct task_struct *task = ctx->task;
	struct executable *record;
	struct mm_struct *mm;
	struct file *file;
	int zero = 0;

	if (!task)
		return 0;
	record = executable_record.lookup(&zero);
	mm = task->mm;
	if (!record || !mm)
		return 0;
	file = mm->exe_file;
	if (!file)
		return 0;
	record->start_ns = task->group_leader->start_boottime;
	record->tgid = task->tgid;
	record->inode = file->f_inode->i_ino;
	record->device = file->f_inode->i_sb->s_dev;
	record->uid = file->f_inode->i_uid;
	record->mode = file->f_inode->i_mode;
	record->folder_uid = 0;
	record->folder_mode = 0;
	find_writable_folder(record, file->f_path.dentry);
	if (get_path(&file->f_path, record->path, EXECUTABLE_PATH_LEN) < 0)
		record->path[0] = 0;
	bpf_seq_write(ctx->meta->seq, record, sizeof(*record));
	return 0;
}
