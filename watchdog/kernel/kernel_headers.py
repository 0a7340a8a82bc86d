"""The header tree for bcc, written at start from the running kernel's own BTF.

bcc requires kernel headers, and hosts often lack them. Its own preamble needs a handful of include files. Our programs
need some twenty structs; each has only the members that the programs read, at the offsets from BTF.
"""

from __future__ import annotations

import os
from pathlib import Path

from watchdog.errors import KernelUnfit
from watchdog.kernel.btf import Btf
from watchdog.kernel.kernel_release import kernel_release

# Struct: the members that bpf/ reads, each with its declaration for the programs and its name in the kernel.
# Each struct comes after the structs that it contains.
_MEMBERS: dict[str, tuple[tuple[str, str], ...]] = {
    "ns_common": (("u32 inum", "inum"),),
    "net": (("struct ns_common ns", "ns"),),
    "sock_common": (
        ("__be32 skc_daddr", "skc_daddr"),
        ("__be32 skc_rcv_saddr", "skc_rcv_saddr"),
        ("__be16 skc_dport", "skc_dport"),
        ("u16 skc_family", "skc_family"),
        ("u8 skc_state", "skc_state"),
        ("u64 skc_cookie", "skc_cookie"),  # atomic64_t contains only the number
        ("unsigned long skc_flags", "skc_flags"),
        ("struct net *skc_net", "skc_net"),  # possible_net_t contains only the pointer
        ("u8 skc_v6_daddr[16]", "skc_v6_daddr"),
        ("u8 skc_v6_rcv_saddr[16]", "skc_v6_rcv_saddr"),
    ),
    "sock": (
        ("struct sock_common __sk_common", "__sk_common"),
        ("struct socket *sk_socket", "sk_socket"),
        ("u16 sk_type", "sk_type"),
        ("u16 sk_protocol", "sk_protocol"),
        ("u8 sk_shutdown", "sk_shutdown"),
        ("int sk_err", "sk_err"),
        ("u32 sk_drops", "sk_drops"),  # atomic_t contains only the number
        ("u32 sk_ack_backlog", "sk_ack_backlog"),
        ("u32 sk_max_ack_backlog", "sk_max_ack_backlog"),
        ("unsigned long sk_user_data", "sk_user_data"),  # a pointer with flags in its lowest bits
    ),
    "inet_sock": (("struct sock sk", "sk"), ("__be16 inet_sport", "inet_sport")),
    "request_sock_queue": (("u32 qlen", "qlen"),),  # atomic_t contains only the number
    "inet_connection_sock": (("struct request_sock_queue icsk_accept_queue", "icsk_accept_queue"),),
    "tcp_sock": (
        ("u64 bytes_sent", "bytes_sent"),
        ("u64 bytes_retrans", "bytes_retrans"),
        ("u64 bytes_received", "bytes_received"),
        ("u64 bytes_acked", "bytes_acked"),
        ("u32 write_seq", "write_seq"),
        ("u32 snd_una", "snd_una"),
        ("u32 rcv_nxt", "rcv_nxt"),
        ("u32 copied_seq", "copied_seq"),
        ("u32 srtt_us", "srtt_us"),
        ("u32 segs_out", "segs_out"),
        ("u32 segs_in", "segs_in"),
        ("u32 total_retrans", "total_retrans"),
    ),
    "socket": (("u32 state", "state"), ("struct sock *sk", "sk"), ("struct file *file", "file")),
    "net_device": (("struct net *nd_net", "nd_net"),),  # possible_net_t contains only the pointer
    "sk_buff": (
        ("struct net_device *dev", "dev"),
        ("unsigned char *head", "head"),
        ("u16 network_header", "network_header"),  # offset from `head`
        ("u16 transport_header", "transport_header"),
    ),
    "qstr": (("const unsigned char *name", "name"),),
    "super_block": (("u32 s_dev", "s_dev"),),
    "inode": (
        ("u16 i_mode", "i_mode"),
        ("u32 i_uid", "i_uid"),  # kuid_t contains only the number
        ("struct super_block *i_sb", "i_sb"),
        ("unsigned long i_ino", "i_ino"),
    ),
    "dentry": (
        ("struct qstr d_name", "d_name"),
        ("struct dentry *d_parent", "d_parent"),
        ("struct inode *d_inode", "d_inode"),
    ),
    "path": (("struct dentry *dentry", "dentry"),),
    "file": (
        ("struct path f_path", "f_path"),
        ("struct inode *f_inode", "f_inode"),
        ("const struct cred *f_cred", "f_cred"),
    ),
    "mm_struct": (("struct file *exe_file", "exe_file"),),
    "cred": (("u32 euid", "euid"),),  # kuid_t contains only the number
    "kernfs_node": (("u64 id", "id"), ("const char *name", "name")),
    "cgroup_subsys_state": (("struct cgroup *cgroup", "cgroup"), ("struct cgroup_subsys_state *parent", "parent")),
    "cgroup_root": (("int hierarchy_id", "hierarchy_id"),),
    "cgroup": (
        ("struct cgroup_subsys_state self", "self"),
        ("struct kernfs_node *kn", "kn"),
        ("struct cgroup_root *root", "root"),
    ),
    "cgroup_namespace": (("struct ns_common ns", "ns"),),
    "nsproxy": (("struct cgroup_namespace *cgroup_ns", "cgroup_ns"),),
    "css_set": (("struct cgroup *dfl_cgrp", "dfl_cgrp"),),
    "task_struct": (
        ("u32 flags", "flags"),
        ("pid_t tgid", "tgid"),
        ("char comm[16]", "comm"),
        ("u64 start_boottime", "start_boottime"),
        ("struct task_struct *group_leader", "group_leader"),
        ("u64 self_exec_id", "self_exec_id"),
        ("const struct cred *real_cred", "real_cred"),
        ("struct css_set *cgroups", "cgroups"),
        ("struct nsproxy *nsproxy", "nsproxy"),
        ("struct mm_struct *mm", "mm"),
    ),
    "bpf_iter_meta": (("struct seq_file *seq", "seq"), ("u64 session_id", "session_id")),
    "bpf_iter__task": (("struct bpf_iter_meta *meta", "meta"), ("struct task_struct *task", "task")),
    "bpf_iter__task_file": (
        ("struct bpf_iter_meta *meta", "meta"),
        ("struct task_struct *task", "task"),
        ("struct file *file", "file"),
    ),
    "bpf_iter__bpf_sk_storage_map": (
        ("struct bpf_iter_meta *meta", "meta"),
        ("struct sock *sk", "sk"),
        ("void *value", "value"),
    ),
}
# Structs that kernels built without a protocol lack: macro that is defined where the kernel has it.
_OPTIONAL: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "mptcp_sock": ("HAS_MPTCP", (("struct sock *first", "first"),)),
}
_CONSTANTS = {"SOCK_DONE": "sock_flags"}
# The newest helper that bpf/ calls, since Linux 5.11. On older kernels the load would fail with EPERM only.
_NEWEST_HELPER = "sock_from_file"

_TYPES = """#pragma once
typedef unsigned char __u8; typedef unsigned short __u16; typedef unsigned int __u32; typedef unsigned long long __u64;
typedef signed char __s8; typedef short __s16; typedef int __s32; typedef long long __s64;
typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;
typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;
typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64;
typedef __u16 __le16; typedef __u32 __le32; typedef __u64 __le64;
typedef __u16 __sum16; typedef __u32 __wsum;
typedef unsigned long size_t; typedef unsigned long uintptr_t; typedef int pid_t;
typedef _Bool bool; typedef __u64 __aligned_u64 __attribute__((aligned(8)));
#define TASK_COMM_LEN 16
"""
_KCONFIG = """#pragma once
#define CONFIG_BPF_SYSCALL 1
#include <linux/types.h>
#define NULL ((void *)0)
#define __always_inline inline __attribute__((always_inline))
"""
# Opcodes of classic BPF: bcc's copy of linux/bpf.h includes them from the kernel's tree (uapi/linux/bpf_common.h).
_OPCODES = {
    "CLASS(code)": "((code) & 0x07)", "LD": 0, "LDX": 1, "ST": 2, "STX": 3, "ALU": 4, "JMP": 5, "RET": 6, "MISC": 7,
    "W": 0, "H": 8, "B": 16, "IMM": 0, "ABS": 32, "IND": 64, "MEM": 96, "LEN": 128, "MSH": 160,
    "ADD": 0, "SUB": 16, "K": 0, "X": 8, "MAXINSNS": 4096,
}  # fmt: skip
# Name of the architecture's folder in bcc's include path.
_ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64"}


def kernel_types_header(btf: Btf) -> str:
    """Return the text of kernel_types.h: each struct of `_MEMBERS` as a union of padded structs, offsets asserted.

    Raises:
        KernelUnfit: the kernel lacks a helper, struct or member; with its name.
    """
    btf.require_helper(_NEWEST_HELPER)
    lines = ["#pragma once", "struct seq_file; struct socket;"]
    lines += [f"#define {name} {btf.enumerator_value(enum, name)}" for name, enum in _CONSTANTS.items()]
    lines += [f"struct {name};" for name in _MEMBERS]
    optional = {name: (macro, members) for name, (macro, members) in _OPTIONAL.items() if btf.has_struct(name)}
    lines += [f"#define {macro} 1" for macro, _ in optional.values()]
    for name, members in (_MEMBERS | {name: members for name, (_, members) in optional.items()}).items():
        offsets = {member: btf.member_offset(name, member) for _, member in members}
        lines.append(f"struct {name} {{ union {{ char size_[{btf.struct_size(name)}];")
        for number, (declaration, member) in enumerate(members):
            padding = f"char pad{number}_[{offsets[member]}]; " if offsets[member] else ""
            lines.append(f"  struct {{ {padding}{declaration}; }};")
        lines.append("}; };")
        lines += [
            f'_Static_assert(__builtin_offsetof(struct {name}, {member}) == {offset}, "{name}.{member}");'
            for member, offset in offsets.items()
        ]
    return "\n".join(lines) + "\n"


def write_header_tree(root: Path) -> None:
    """Write under `root` the files that bcc and our programs include.

    Raises:
        KernelUnfit: the architecture is not supported, or the kernel lacks a helper, struct or member.
    """
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise KernelUnfit(f"{machine} is not supported", remedy="use x86_64 or aarch64")
    files = {
        "include/linux/types.h": _TYPES,
        "include/linux/kconfig.h": _KCONFIG,
        "include/linux/bpf_common.h": "#pragma once\n"
        + "".join(f"#define BPF_{name} {value}\n" for name, value in _OPCODES.items()),
        "include/linux/version.h": "#pragma once\n"
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))\n"
        "#define LINUX_VERSION_CODE KERNEL_VERSION({},{},{})\n".format(*kernel_release()),
        "include/linux/log2.h": "",
        "include/uapi/linux/bpf.h": "",
        "include/uapi/linux/if_packet.h": "",
        f"arch/{_ARCHITECTURES[machine]}/include/asm/page.h": "",
        "include/kernel_types.h": kernel_types_header(Btf()),
    }
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="ascii")
