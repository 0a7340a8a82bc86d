"""The resources of the running daemon, and those left after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from watchdog.kernel import libbpf
from watchdog.kernel.privileges import service_account

# As the unit starts it: its own account, two ambient capabilities.
AS_SERVICE = [
    "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
    "--inh-caps=+bpf,+perfmon", "--ambient-caps=+bpf,+perfmon",
]  # fmt: skip
NOBODY = 65534
MOST_KILOBYTES = (
    72 * 1024
)  # after a storm told to five receivers; at rest it is below 60 MB (tests/bench/bench_rest.py)


def bpf_objects(pid):
    """Return the ids of the BPF programs of a process, and its links by id with their attach targets."""
    programs, links = set(), {}
    for file in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            lines = file.read_text().splitlines()
        except FileNotFoundError:  # open for the length of a tick
            continue
        facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if "prog_id" in facts:
            programs.add(int(facts["prog_id"]))
        if "link_id" in facts:
            links[int(facts["link_id"])] = facts.get("tp_name") or facts["target_name"]
    return programs, links


def exist(get_by_id, numbers):
    """Return the ids among `numbers` that still exist in the kernel."""
    found = {number: get_by_id(number) for number in numbers}
    for fd in found.values():
        if fd >= 0:
            os.close(fd)
    return {number for number, fd in found.items() if fd >= 0}


@pytest.mark.parametrize("started", [[], AS_SERVICE], ids=["by root", "as the service"])
def test_it_holds_no_privilege_no_compiler_little_memory_and_no_program_on_the_data_path(
    watchdog, open_command, server, rsyslog, storm, started
):
    if started:
        watchdog.give_to_nobody()
        watchdog.command = open_command
    watchdog.configure(
        receivers={
            "hook": server.as_receiver(hmac_secret="made-up"),
            "oncall": {"type": "slack", "webhook_url": server.url},
            "far": {"type": "syslog", "address": rsyslog.address("tcp")},
            "near": {"type": "syslog", "address": rsyslog.address("log5424")},
            "terminal": {"type": "console"},
        },
        rules={"storm": storm.crowd_rule()},
    )
    pinned = set(Path("/sys/fs/bpf").rglob("*"))
    watchdog.start(*started)
    storm.hold()
    rsyslog.arrived(2)
    storm.release()
    rsyslog.arrived(4)
    process = Path(f"/proc/{watchdog.process.pid}")
    lines = (process / "status").read_text().splitlines()
    status = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    maps = (process / "maps").read_text()
    _, links = bpf_objects(watchdog.process.pid)

    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {"0" * 16}
    uid, gid = (NOBODY, NOBODY) if started else (service_account().pw_uid, service_account().pw_gid)
    assert uid != 0
    assert status["Uid"].split() == [str(uid)] * 4  # real, effective, saved, of the file system
    assert status["Gid"].split() == [str(gid)] * 4
    assert (status["Groups"], status["NoNewPrivs"]) == ("", "1")
    assert "libbpf" in maps
    assert "LLVM" not in maps
    assert "libbcc" not in maps
    assert int(status["VmRSS"].removesuffix(" kB")) <= MOST_KILOBYTES
    assert sorted(links.values()) == [
        "bpf_sk_storage_map",
        "cgroup_mkdir",
        "inet_sock_set_state",
        "inet_sock_set_state",
        "task_file",
        "tcp_receive_reset",
        "tcp_send_reset",
    ]
    assert set(Path("/sys/fs/bpf").rglob("*")) <= pinned


def test_its_secrets_get_into_no_core_file_and_to_no_other_process_of_its_account(
    watchdog, open_command, server, storm, open_folder
):
    watchdog.give_to_nobody()
    watchdog.command = open_command
    watchdog.configure({"hook": server.as_receiver()}, {"storm": storm.rule()})
    crashes = open_folder / "crashes"
    crashes.mkdir()
    crashes.chmod(0o777)
    watchdog.start(*AS_SERVICE, "sh", "-c", f'cd {crashes}; ulimit -c "$(ulimit -H -c)"; exec "$@"', "sh")
    pid = watchdog.process.pid
    command = ["cat", f"/proc/{pid}/environ"]
    read = subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=(), capture_output=True, check=False)
    watchdog.process.send_signal(signal.SIGABRT)
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    assert (read.returncode, read.stdout) == (1, b"")
    assert (ended.si_code, ended.si_status) == (os.CLD_KILLED, signal.SIGABRT)  # CLD_DUMPED: with a core file
    assert list(crashes.iterdir()) == []


def test_kill_leaves_no_program_and_no_link_behind(start_daemon, watchdog, wait_for):
    start_daemon()
    programs, links = bpf_objects(watchdog.process.pid)
    lib = libbpf.library()
    assert exist(lib.bpf_prog_get_fd_by_id, programs) == programs
    assert exist(lib.bpf_link_get_fd_by_id, links) == set(links)
    watchdog.kill()

    # The kernel frees them after a grace period.
    wait_for(lambda: not exist(lib.bpf_prog_get_fd_by_id, programs), "the end of the programs")
    wait_for(lambda: not exist(lib.bpf_link_get_fd_by_id, links), "the end of the links")


def test_message_probes_are_attached_only_while_a_rule_reads_their_metrics(watchdog, server, storm):
    hook, crowd = {"hook": server.as_receiver()}, storm.crowd_rule()
    latency = storm.rule(metric="response_latency", stat="p99", fire_above=1_000, clear_below=500)

    def on_messages():
        return sorted(name for name in bpf_objects(watchdog.process.pid)[1].values() if name.startswith("sock_"))

    watchdog.configure(hook, {"storm": crowd})
    watchdog.start()
    assert on_messages() == []
    for rules, attached in (
        ({"storm": crowd, "latency": latency}, ["sock_recv_length", "sock_send_length"]),
        ({"storm": crowd}, []),
    ):
        watchdog.configure(hook, rules)
        assert "INFO reloaded: rules=" in watchdog.reload()
        assert on_messages() == attached
