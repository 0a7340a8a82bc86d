"""Unit, container and users of control groups, in the paths that common systems make."""

import pytest

from watchdog.measure.cgroup_path import find_place

ID = "3f5a" * 16
OTHER = "9c1e" * 16
C, D = ID[:12], OTHER[:12]
USER = "/user.slice/user-1000.slice/user@1000.service"
POD = "kubepods-burstable-podab12_cd"
TASK = "0b6a1c2d-3e4f-5a6b-7c8d-9e0f1a2b3c4d.web"


@pytest.mark.parametrize(
    ("path", "unit", "container"),
    [
        # systemd
        ("/", "", ""),
        ("/init.scope", "init.scope", ""),
        ("/system.slice/nginx.service", "nginx.service", ""),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service", ""),
        (r"/system.slice/system-postgresql.slice/postgresql@15\x2dmain.service", r"postgresql@15\x2dmain.service", ""),
        ("/a.slice/a-b.slice/a-b-c.slice/app.service", "app.service", ""),
        ("/system.slice/ssh.socket", "ssh.socket", ""),
        ("/system.slice/srv-data.mount", "srv-data.mount", ""),
        ("/system.slice/run-u17.scope", "run-u17.scope", ""),
        ("/system.slice/run-r01234567.service", "run-r01234567.service", ""),
        ("/system.slice/_memory.service", "memory.service", ""),
        ("/system.slice/__own.service", "_own.service", ""),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope", ""),
        ("/user.slice/user-0.slice/session-c1.scope", "session-c1.scope", ""),
        ("/../nginx.service", "nginx.service", ""),
        # services that make groups below their own (Delegate=)
        ("/system.slice/ci.service/nginx.service", "ci.service", ""),
        ("/system.slice/ci.service/system.slice/bpf-watchdog.service", "ci.service", ""),
        ("/system.slice/ci.service/lxc/web", "ci.service", "ci.service/web"),
        (r"/system.slice/ci.service/machine-web.scope", "ci.service", "ci.service/web"),
        ("/system.slice/condor.service/condor_var_lib_condor_execute_slot1_1@node", "condor.service", ""),
        ("/system.slice/web.service/.control", "web.service", ""),
        # managers of users
        (USER, "user@1000.service", ""),
        (f"{USER}/init.scope", "user@1000/init.scope", ""),
        (f"{USER}/app.slice/nginx.service", "user@1000/nginx.service", ""),
        (f"{USER}/app.slice/bpf-watchdog.service", "user@1000/bpf-watchdog.service", ""),
        (f"{USER}/app.slice/app-gnome-firefox-4711.scope", "user@1000/app-gnome-firefox-4711.scope", ""),
        (f"{USER}/session.slice/org.gnome.Shell@wayland.service", "user@1000/org.gnome.Shell@wayland.service", ""),
        (f"{USER}/app.slice/vte.scope/nginx.service", "user@1000/vte.scope", ""),
        (f"{USER}/system.slice/nginx.service", "user@1000/nginx.service", ""),
        (f"{USER}/user.slice/user-0.slice/user@0.service/a.service", "user@1000/user@0/a.service", ""),
        (f"{USER}/a/b/c", "user@1000.service", ""),
        (f"{USER}/docker-{ID}.scope/user@0.service/a.service", f"user@1000/{C}/user@0.service", f"user@1000/{C}"),
        ("/user.slice/user-1000.slice/session-3.scope/nginx.service", "session-3.scope", ""),
        # Docker
        (f"/system.slice/docker-{ID}.scope", f"docker-{ID}.scope", C),
        (f"/batch.slice/docker-{ID}.scope", f"docker-{ID}.scope", C),
        (f"/docker/{ID}", "", C),
        (f"/system.slice/docker.service/docker/{ID}", "docker.service", C),
        ("/docker/buildkit/gtl6jqj2hpbzs6qz6x1fqwwqz", "", "gtl6jqj2hpbz"),
        (f"/ecs/0123456789abcdef0123456789abcdef/{ID}", "", C),
        (f"/system.slice/docker-{ID}.scope/system.slice/bpf-watchdog.service", f"{C}/bpf-watchdog.service", C),
        (f"/system.slice/docker-{ID}.scope/init.scope", f"{C}/init.scope", C),
        (f"/docker/{ID}/system.slice/nginx.service", f"{C}/nginx.service", C),
        (f"/docker/{ID}{USER}/a.service", f"{C}/user@1000/a.service", C),
        (f"/docker/{ID}/docker/{OTHER}", "", f"{C}/{D}"),
        (f"/docker/{ID}/kubelet/kubepods/besteffort/pod1b2c/{OTHER}", "", f"{C}/{D}"),
        (f"/docker/{ID}/lxc.payload.web", "", f"{C}/web"),
        (f"{USER}/user.slice/docker-{ID}.scope", f"user@1000/docker-{ID}.scope", f"user@1000/{C}"),
        (f"{USER}/app.slice/docker.service/docker/{ID}", "user@1000/docker.service", f"user@1000/{C}"),
        (f"/system.slice/nerdctl-{ID}.scope", f"nerdctl-{ID}.scope", C),
        # Podman
        (f"/machine.slice/libpod-{ID}.scope", f"libpod-{ID}.scope", C),
        (f"/machine.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope", C),
        (f"/machine.slice/libpod-{ID}.scope/container/system.slice/a.service", f"{C}/a.service", C),
        (f"/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope/container", f"libpod-{ID}.scope", C),
        (f"/machine.slice/libpod-conmon-{ID}.scope", f"libpod-conmon-{ID}.scope", ""),
        (f"/libpod_parent/libpod-{ID}", "", C),
        (f"/libpod_parent/{OTHER}/libpod-{ID}", "", C),
        (f"/system.slice/web.service/libpod-payload-{ID}", "web.service", C),
        ("/system.slice/web.service/supervisor", "web.service", ""),
        (f"{USER}/user.slice/libpod-{ID}.scope/container", f"user@1000/libpod-{ID}.scope", f"user@1000/{C}"),
        (f"{USER}/user.slice/libpod-{ID}.scope/container/system.slice/nginx.service",
         f"user@1000/{C}/nginx.service", f"user@1000/{C}"),
        (f"{USER}/user.slice/user-libpod_pod_{OTHER}.slice/libpod-{ID}.scope/container",
         f"user@1000/libpod-{ID}.scope", f"user@1000/{C}"),
        (f"{USER}/app.slice/web.service/libpod-payload-{ID}", "user@1000/web.service", f"user@1000/{C}"),
        (f"{USER}/user.slice/podman-99.scope/libpod-{ID}", "user@1000/podman-99.scope", f"user@1000/{C}"),
        # Kubernetes
        (f"/kubepods.slice/kubepods-burstable.slice/{POD}.slice/cri-containerd-{ID}.scope",
         f"cri-containerd-{ID}.scope", C),
        (f"/kubepods.slice/{POD}.slice/cri-containerd-{ID}.scope/system.slice/a.service", f"{C}/a.service", C),
        (f"/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope", f"crio-{ID}.scope", C),
        (f"/kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope/container", f"crio-{ID}.scope", C),
        (f"/kubepods.slice/kubepods-pod1.slice/crio-conmon-{ID}.scope", f"crio-conmon-{ID}.scope", ""),
        (f"/kubepods/besteffort/pod1b2c/{ID}", "", C),
        (f"/kubepods/burstable/pod1b2c/crio-{ID}", "", C),
        (f"/kubepods/burstable/pod1b2c/crio-conmon-{ID}", "", ""),
        (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod1.slice/cri-containerd-{ID}.scope",
         f"cri-containerd-{ID}.scope", C),
        (f"/kubepods-burstable-pod1.slice:cri-containerd:{ID}", "", C),
        (f"/system.slice/containerd.service/{POD}.slice:cri-containerd:{ID}", "containerd.service", C),
        (f"/kubepods/pod1/kata_{ID}", "", C),
        # LXC, Incus, Proxmox
        ("/lxc.payload.web", "", "web"),
        ("/lxc.payload.web/system.slice/nginx.service", "web/nginx.service", "web"),
        ("/lxc.payload.project_web-1/init.scope", "project_web-1/init.scope", "project_web-1"),
        ("/lxc.monitor.web", "", ""),
        ("/lxc.payload/web/system.slice/nginx.service", "web/nginx.service", "web"),
        ("/lxc/web/system.slice/nginx.service", "web/nginx.service", "web"),
        ("/lxc/101/ns/system.slice/nginx.service", "101/nginx.service", "101"),
        ("/lxc/101/ns", "", "101"),
        ("/lxc.monitor/101", "", ""),
        (f"/lxc.payload.web/docker/{ID}", "", f"web/{C}"),
        (f"/lxc.payload.web/system.slice/docker-{ID}.scope", f"web/docker-{ID}.scope", f"web/{C}"),
        (f"/lxc.payload.web{USER}/app.slice/a.service", "web/user@1000/a.service", "web"),
        (f"{USER}/app.slice/run-r1.scope/lxc.payload.web/init.scope", "user@1000/web/init.scope", "user@1000/web"),
        ("/user.slice/user-1000.slice/session-3.scope/lxc/web", "session-3.scope", "user@1000/web"),
        # machines of systemd and libvirt; virtual machines of Proxmox
        (r"/machine.slice/machine-web\x2dfront.scope/payload", r"machine-web\x2dfront.scope", "web-front"),
        (r"/machine.slice/machine-web\x2dfront.scope/payload/system.slice/a.service",
         "web-front/a.service", "web-front"),
        ("/machine.slice/systemd-nspawn@web.service/payload", "systemd-nspawn@web.service", "web"),
        ("/machine.slice/systemd-nspawn@web.service/payload/system.slice/a.service", "web/a.service", "web"),
        (f"{USER}/machine.slice/machine-web.scope/payload", "user@1000/machine-web.scope", "user@1000/web"),
        (r"/machine.slice/machine-qemu\x2d1\x2ddb.scope/libvirt/emulator",
         r"machine-qemu\x2d1\x2ddb.scope", "qemu-1-db"),
        (r"/machine.slice/machine-lxc\x2d9\x2ddb.scope/libvirt", r"machine-lxc\x2d9\x2ddb.scope", "lxc-9-db"),
        ("/machine/qemu-1-db.libvirt-qemu/emulator", "", "qemu-1-db"),
        ("/qemu.slice/100.scope", "100.scope", ""),
        # batch systems
        (f"/nomad.slice/share.slice/{TASK}.scope", f"{TASK}.scope", "0b6a1c2d.web"),
        (f"/nomad.slice/{TASK}.scope", f"{TASK}.scope", "0b6a1c2d.web"),
        (f"/nomad/share/{TASK}", "", "0b6a1c2d.web"),
        (f"/nomad.slice/share.slice/docker-{ID}.scope", f"docker-{ID}.scope", C),
        ("/system.slice/slurmstepd.scope/job_7/step_0/user/task_0", "slurmstepd.scope", ""),
        ("/system.slice/slurmstepd.scope/job_7/step_0/user/a.service", "slurmstepd.scope", ""),
        ("/slurm/uid_1000/job_7/step_0", "", ""),
    ],
)  # fmt: skip
def test_unit_and_container_come_from_the_path(path, unit, container):
    place = find_place(path)
    assert (place.unit, place.container) == (unit, container)


@pytest.mark.parametrize(
    "below", [USER, f"/docker/{ID}", f"/system.slice/docker-{ID}.scope", "/lxc.payload.web", "/lxc/1"]
)
@pytest.mark.parametrize("forged", [
    "/nginx.service", "/system.slice/nginx.service", "/../system.slice/nginx.service", "/_nginx.service",
    "/a/b/nginx.service", f"/docker-{OTHER}.scope", f"/docker/{OTHER}", "/lxc.payload.web", "/lxc/web",
    "/machine.slice/machine-web.scope", "/user.slice/user-0.slice/user@0.service/nginx.service",
    r"/machine-..\x2fweb.scope", f"/{TASK}",
])  # fmt: skip
def test_no_name_below_a_delegation_is_one_of_the_host(below, forged):
    host, place = find_place(below), find_place(below + forged)
    owner = host.container or "user@1000"
    assert place.unit == host.unit or place.unit.startswith(owner + "/")
    assert place.container == host.container or place.container.startswith(owner + "/")


def test_names_below_many_delegations_are_bounded():
    assert find_place(f"/docker/{ID}" * 1000).container == f"{C}/{C}/{C}"


def test_paths_of_many_levels_are_read_in_part():
    assert find_place(f"{USER}/a.service{'/deep' * 1900}/docker-{ID}.scope").unit == "user@1000/a.service"
    assert find_place(f"{'/deep' * 31}/a.service").unit == "a.service"
    assert find_place(f"{'/deep' * 32}/a.service").unit == ""


@pytest.mark.parametrize(
    ("path", "uids"),
    [
        ("/system.slice/nginx.service", {0, 33, 1000}),
        (f"{USER}/app.slice/a.service", {0, 33, 1000}),
        (f"/system.slice/docker-{ID}.scope", {0}),
        (f"/docker/{ID}{USER}/a.service", {0}),
        ("/lxc/101/ns/system.slice/nginx.service", {0}),
        ("/machine.slice/machine-web.scope/payload", {0}),
        (f"{USER}/user.slice/libpod-{ID}.scope/container", {0, 1000}),
        (r"/machine.slice/machine-qemu\x2d1\x2ddb.scope/libvirt/emulator", {0, 33, 1000}),
        (f"/nomad.slice/share.slice/{TASK}.scope", {0, 33, 1000}),
        (f"/nomad.slice/share.slice/{TASK}.scope/docker/{ID}", {0}),
    ],
)
def test_numbers_of_users_in_a_container_are_not_those_of_the_host(path, uids):
    place = find_place(path)
    assert {uid for uid in (0, 33, 1000) if place.is_host_user(uid)} == uids


@pytest.mark.parametrize(
    ("path", "unit", "container"),
    [
        ("/system.slice/ci.service", "ci.service", ""),
        (f"/system.slice/ci.service/docker-{ID}.scope", "ci.service", f"ci.service/{C}"),
        (f"/system.slice/ci.service/libpod-payload-{ID}", "ci.service", f"ci.service/{C}"),
        (f"/system.slice/ci.service/docker/{ID}/a.service", f"ci.service/{C}/a.service", f"ci.service/{C}"),
        ("/system.slice/ci.service/lxc/web", "ci.service", "ci.service/web"),
    ],
)
def test_containers_of_a_service_that_is_delegated_to_a_user_carry_its_name(path, unit, container):
    place = find_place(path, 998)
    assert (place.unit, place.container, place.is_host_user(998)) == (unit, container, True)
    assert place.is_host_user(33) == (not container)
    assert place.service == ("/system.slice/ci.service" if container else "")
