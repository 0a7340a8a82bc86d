"""Control groups' paths, as the systems in use write them."""

import pytest

from watchdog.measure.cgroup import Cgroups, unit_and_container

ID = "3f5a" * 16


@pytest.mark.parametrize(
    ("path", "unit", "container"),
    [
        ("/", "", ""),
        ("/system.slice/nginx.service", "nginx.service", ""),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", ""),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service", "backup.service", ""),
        (f"/system.slice/docker-{ID}.scope", f"docker-{ID}.scope", ID[:12]),
        (f"/docker/{ID}", "", ID[:12]),
        (f"/system.slice/docker.service/docker/{ID}", "docker.service", ID[:12]),
        (f"/machine.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope", ID[:12]),
        (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab12_cd.slice/cri-containerd-{ID}.scope",
         f"cri-containerd-{ID}.scope", ID[:12]),
        (f"/kubepods/besteffort/pod1b2c/{ID}", "", ID[:12]),
        (f"/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope", f"crio-{ID}.scope", ID[:12]),
        (f"/kubepods-burstable-pod1.slice:cri-containerd:{ID}", "", ID[:12]),
        (r"/machine.slice/machine-web\x2dfront.scope/payload", r"machine-web\x2dfront.scope", "web-front"),
    ],
)  # fmt: skip
def test_unit_and_container_are_read_off_the_path(path, unit, container):
    assert unit_and_container(path) == (unit, container)


@pytest.fixture
def host(tmp_path):
    """A host with cgroup v2 and one process, 42."""
    group = tmp_path / "cgroup" / "system.slice" / "web.service"
    group.mkdir(parents=True)
    process = tmp_path / "proc" / "42"
    process.mkdir(parents=True)
    (process / "cgroup").write_text("0::/system.slice/other.service\n")
    return Cgroups(tmp_path / "proc", tmp_path / "cgroup"), group


def test_the_kernels_note_of_the_group_is_preferred(host):
    cgroups, group = host

    assert cgroups.path(42, group.stat().st_ino) == "/system.slice/web.service"


def test_a_process_that_is_gone_is_found_by_its_group(host):
    cgroups, group = host

    assert cgroups.path(43, group.stat().st_ino) == "/system.slice/web.service"


def test_a_group_that_is_gone_is_still_known(host):
    cgroups, group = host
    inode = group.stat().st_ino
    cgroups.path(43, inode)
    group.rmdir()

    assert cgroups.path(43, inode) == "/system.slice/web.service"


@pytest.mark.parametrize("inode", [0, 1])
def test_without_a_note_the_process_tells(host, inode):
    cgroups, _ = host

    assert cgroups.path(42, inode) == "/system.slice/other.service"
    assert cgroups.path(43, inode) == ""


def test_on_hybrid_hosts_systemds_own_hierarchy_has_the_unit(tmp_path):
    process = tmp_path / "42"
    process.mkdir()
    (process / "cgroup").write_text("4:memory:/x\n1:name=systemd:/system.slice/db.service\n0::/\n")

    assert Cgroups(tmp_path, tmp_path / "none").path(42, 1) == "/system.slice/db.service"
