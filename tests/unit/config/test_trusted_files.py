"""Files that others can change are found by any part of their path; usual layouts pass."""

import grp
import os
import pwd
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from watchdog.config.permissions import ACCOUNT, other_readers
from watchdog.config.trusted_files import Flaw, code_owners, data_owners, find_flaw, flaw_of_open_folder, flaws_on_path

NOBODY = pwd.getpwnam("nobody")
SERVICE = pwd.getpwnam(ACCOUNT)
STRANGER = 61_234  # a uid and gid without a name


@pytest.fixture
def place(tmp_path):
    """Return a file in two folders, all root's and closed to writing."""
    folder = tmp_path / "etc" / "rules.d"
    folder.mkdir(parents=True)
    file = folder / "a.toml"
    file.write_text("")
    for each in (folder.parent, folder):
        each.chmod(0o755)
    file.chmod(0o644)
    return file


def flaws(path, owners=None):
    return [(flaw.path, str(flaw)) for flaw in flaws_on_path(str(path), data_owners() if owners is None else owners)]


def test_files_of_root_have_no_flaw(place):
    assert flaws(place) == []


@pytest.mark.parametrize("level", [0, 1, 2], ids=["file", "folder", "folder above"])
@pytest.mark.parametrize(
    ("user", "group", "mode", "text"),
    [
        (NOBODY.pw_uid, 0, 0o755, "belongs to nobody, who can change it: chown root {}"),
        (STRANGER, 0, 0o700, "belongs to uid 61234, who can change it: chown root {}"),
        (0, 0, 0o775, "writable by the group root (mode 0775): chmod g-w {}"),
        (0, STRANGER, 0o770, "writable by the group 61234 (mode 0770): chmod g-w {}"),
        (0, SERVICE.pw_gid, 0o757, "writable by everyone on this host (mode 0757): chmod o-w {}"),
        (0, 0, 0o777, "writable by everyone on this host (mode 0777): chmod go-w {}"),
    ],
)
def test_each_part_of_the_path_counts(place, level, user, group, mode, text):
    part = [place, *place.parents][level]
    os.chown(part, user, group)
    part.chmod(mode)

    assert flaws(place) == [(str(part), text.format(part))]


@pytest.mark.parametrize(("group", "mode"), [(SERVICE.pw_gid, 0o640), (SERVICE.pw_gid, 0o2750), (STRANGER, 0o440)])
def test_a_group_may_read(place, group, mode):
    os.chown(place.parent if mode & 0o100 else place, 0, group)
    (place.parent if mode & 0o100 else place).chmod(mode)

    assert flaws(place) == []


def test_files_of_the_daemons_account_are_data_and_no_code(place):
    os.chown(place, SERVICE.pw_uid, SERVICE.pw_gid)

    assert flaws(place) == []
    assert flaws(place, code_owners()) == [(str(place), f"belongs to {ACCOUNT}, who can change it: chown root {place}")]


def test_the_private_group_of_a_trusted_account_may_write(place):
    os.chown(place, SERVICE.pw_uid, SERVICE.pw_gid)
    place.chmod(0o664)
    assert flaws(place) == []
    os.chown(place, SERVICE.pw_uid, NOBODY.pw_gid)
    assert flaws(place) == [(str(place), f"writable by the group nogroup (mode 0664): chmod g-w {place}")]


def test_the_group_that_owns_usr_local_may_write_there_while_it_has_no_member(place):
    staff = grp.getgrnam("staff")
    if staff.gr_mem:
        pytest.skip("the group staff of this host has members")
    os.chown(place.parent, 0, staff.gr_gid)
    place.parent.chmod(0o2775)
    status = place.parent.stat()

    assert find_flaw("/usr/local/lib/python3", status, {0}) is None
    assert str(find_flaw("/opt/lib", status, {0})) == "writable by the group staff (mode 2775): chmod g-w /opt/lib"


def test_a_checkout_of_the_caller_of_sudo_is_trusted(place, monkeypatch):
    os.chown(place, NOBODY.pw_uid, NOBODY.pw_gid)
    assert flaws(place, code_owners()) != []
    monkeypatch.setenv("SUDO_UID", str(NOBODY.pw_uid))
    assert flaws(place, code_owners()) == []
    monkeypatch.setenv("SUDO_UID", "-1")
    assert flaws(place, code_owners()) != []


# --------------------------------------------------------------------------------------------------- links, sticky bits


def test_a_folder_like_tmp_is_no_flaw_on_the_way(place):
    place.parent.chmod(0o1777)
    assert flaws(place) == []
    os.chown(place, NOBODY.pw_uid, 0)
    assert [path for path, _ in flaws(place)] == [str(place)]


def test_a_folder_like_tmp_is_one_if_all_its_files_are_read(place):
    assert flaw_of_open_folder(str(place.parent)) is None
    place.parent.chmod(0o1777)
    assert flaw_of_open_folder(str(place.parent)) == Flaw(
        str(place.parent), "other users can add files to it", f"chmod go-w {place.parent}, or use another folder"
    )


def test_the_way_of_a_link_and_the_link_count(place, tmp_path):
    link = tmp_path / "link"
    link.symlink_to("etc/../etc/rules.d")
    path = link / "a.toml"
    assert flaws(path) == []
    place.parent.parent.chmod(0o777)
    assert [one for one, _ in flaws(path)] == [str(place.parent.parent)] * 2
    place.parent.parent.chmod(0o755)
    os.chown(link, NOBODY.pw_uid, 0, follow_symlinks=False)
    assert flaws(path) == [(str(link), f"belongs to nobody, who can change it: chown -h root {link}")]


def test_the_folder_above_a_links_target_is_the_one_that_counts(place, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    other.chmod(0o777)
    (other / "link").symlink_to(place.parent)
    secure = tmp_path / "secure"
    secure.symlink_to(place.parent)

    assert flaws(f"{secure}/../rules.d/a.toml") == []
    assert [path for path, _ in flaws(f"{other}/link/../rules.d/a.toml")] == [str(other)]


def test_a_circle_of_links_ends(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    assert flaws(tmp_path / "a") == []
    assert flaws("a\0b") == []


def test_a_store_like_that_of_nix_is_trusted(tmp_path):
    store = tmp_path / "store"
    (store / "hash-rules").mkdir(parents=True)
    (store / "hash-rules" / "a.toml").write_text("")
    (store / "hash-rules").chmod(0o555)
    os.chown(store, 0, STRANGER)
    store.chmod(0o1775)

    assert flaws(store / "hash-rules" / "a.toml") == []


def test_the_remedy_for_a_folder_of_code_covers_its_content(place):
    place.parent.chmod(0o777)
    found = find_flaw(str(place.parent), place.parent.stat(), {0}, recursive=True)

    assert (found.remedy, found.is_recursive) == (f"chmod -R go-w {place.parent}", True)


IN_NAMESPACE = """\
import sys
from watchdog.config.trusted_files import data_owners, flaws_on_path
print([str(flaw) for flaw in flaws_on_path(sys.argv[1], data_owners())])
"""


def test_owners_outside_of_a_user_namespace_are_unknown_and_no_flaw():
    # Mapped is only the caller: files of the host's root look as if they belonged to nobody.
    command = ["setpriv", "--reuid=61234", "--regid=61234", "--clear-groups", "unshare", "--user", "--map-root-user"]
    checkout = Path(__file__).parents[3]
    done = subprocess.run(
        [*command, sys.executable, "-c", IN_NAMESPACE, "/etc/hostname"],
        capture_output=True, text=True, check=False, cwd="/", env={"PYTHONPATH": str(checkout)},
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[]\n", "")


def give_by_access_list(path, rights, *, user=None, group=None):
    """Give the file an access list that gives `rights` to a user or group; its group has no more than the list."""
    tag, number = (0x02, user) if group is None else (0x08, group)
    entries = [(0x01, 6, -1), (tag, rights, number), (0x04, 4, -1), (0x10, rights | 4, -1), (0x20, 0, -1)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in sorted(entries))
    try:
        os.setxattr(path, "system.posix_acl_access", packed)
    except OSError as error:
        pytest.skip(f"no access lists here: {error}")


@pytest.mark.parametrize(
    ("entry", "name"),
    [({"user": NOBODY.pw_uid}, "nobody"), ({"user": STRANGER}, "uid 61234"), ({"group": STRANGER}, "the group 61234")],
)
def test_write_permission_by_an_access_list_is_a_flaw(place, entry, name):
    os.chown(place, 0, SERVICE.pw_gid)
    give_by_access_list(place, 6, **entry)
    assert flaws(place) == [(str(place), f"writable by {name} (access list): setfacl -b {place}")]
    os.removexattr(place, "system.posix_acl_access")
    give_by_access_list(place, 4, **entry)
    assert flaws(place) == []


def test_the_account_of_the_daemon_may_have_an_entry(place):
    os.chown(place, 0, SERVICE.pw_gid)
    give_by_access_list(place, 6, user=SERVICE.pw_uid)
    assert flaws(place) == []


def test_read_permission_by_an_access_list_opens_a_file_to_others(place):
    os.chown(place, 0, SERVICE.pw_gid)
    place.chmod(0o640)
    assert other_readers(place.stat(), str(place)) is None
    give_by_access_list(place, 4, user=SERVICE.pw_uid)
    assert other_readers(place.stat(), str(place)) is None
    for entry, name in (({"user": NOBODY.pw_uid}, "nobody"), ({"group": STRANGER}, "the group 61234")):
        give_by_access_list(place, 4, **entry)
        assert other_readers(place.stat(), str(place)) == f"{name} (access list)"


_FUSE = r"""
import ctypes, errno, os, struct, sys
from watchdog.config.trusted_files import data_owners, flaws_on_path

place, user = sys.argv[1:]
fd = os.open("/dev/fuse", os.O_RDWR)
options = f"fd={fd},rootmode=040755,user_id={user},group_id=0,allow_other".encode()
if ctypes.CDLL(None).mount(b"x", place.encode(), b"fuse", 6, options):
    sys.exit("mount failed")
if os.fork() == 0:
    print([(flaw.path, str(flaw)) for flaw in flaws_on_path(f"{place}/sub/a.toml", data_owners())], flush=True)
    os._exit(0)

def reply(unique, data=b"", error=0):
    os.write(fd, struct.pack("<IiQ", 16 + len(data), -error, unique) + data)

def attributes(node):  # of root: what this server likes
    return struct.pack("<6Q10I", node, 1, 1, 0, 0, 0, 0, 0, 0, 0o100644 if node == 3 else 0o40755, 1, 0, 0, 0, 4096, 0)

while os.waitpid(-1, os.WNOHANG)[0] == 0:
    try:
        os.set_blocking(fd, False)
        request = os.read(fd, 1 << 17)
    except BlockingIOError:
        continue
    code, unique, node = struct.unpack("<4xIQQ", request[:24])
    if code == 26:  # INIT
        reply(unique, struct.pack("<IIIIHHIIHH", 7, 31, 0, 0, 12, 9, 65536, 1, 1, 0).ljust(64, b"\0"))
    elif code == 1:  # LOOKUP: the folder sub is node 2, the file in it node 3
        reply(unique, struct.pack("<QQQQII", node + 1, 0, 60, 60, 0, 0) + attributes(node + 1))
    elif code == 3:  # GETATTR
        reply(unique, struct.pack("<QII", 60, 0, 0) + attributes(node))
    elif code != 2:
        reply(unique, error=errno.ENOSYS)
"""


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="mounts a file system (FUSE)")
@pytest.mark.parametrize("user", [0, NOBODY.pw_uid])
def test_the_user_who_serves_a_file_system_can_change_its_files(tmp_path, user):
    inside = ("timeout", "-s", "KILL", "30", "unshare", "--mount", "--propagation", "private")
    found = subprocess.run(
        [*inside, sys.executable, "-c", _FUSE, tmp_path, str(user)], capture_output=True, text=True, check=True
    )
    reason = "on a file system of nobody, who can change it: umount"
    flaw = (str(tmp_path), f"{reason} {tmp_path}, or keep the file elsewhere")
    assert found.stdout == f"{[flaw] if user else []}\n"


_HOSTILE_MOUNT = r"""
import ctypes, os, sys
from watchdog.config.trusted_files import data_owners, flaws_on_path

mount = ctypes.CDLL(None).mount
for place in sys.argv[1:]:
    os.mkdir(place)
    if mount(b"x", os.fsencode(place), b"tmpfs", 6, b""):
        sys.exit("mount failed")
print(flaws_on_path(sys.argv[1], data_owners()))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts file systems")
def test_a_mount_with_a_line_end_in_its_name_hides_no_other(tmp_path):
    inside = ("timeout", "-s", "KILL", "30", "unshare", "--mount", "--propagation", "private")
    places = [f"{tmp_path}/{name}" for name in ("plain", "a\rb", "c\vd", "e\ff", "g\x85h", "i\u2028j")]
    found = subprocess.run(
        [*inside, sys.executable, "-c", _HOSTILE_MOUNT, *places], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
