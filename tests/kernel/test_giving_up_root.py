"""Root runs only our code before it changes to the service account, and keeps nothing there."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from watchdog.errors import NotPermitted
from watchdog.kernel import loader, privileges
from watchdog.kernel.privileges import CREATE_ACCOUNT_COMMAND

COMMAND = Path(sys.executable).with_name("bpf-watchdog")


def python(script, *arguments, **options):
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, **options)


@pytest.fixture
def usual_umask():
    before = os.umask(0)  # the most permissive, so that the test sees the change
    yield
    os.umask(before)


def test_modules_in_the_current_folder_are_not_run(tmp_path):
    ran = tmp_path / "ran"
    for name in ("json", "mmap", "bcc", "struct"):
        (tmp_path / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('{name} ')")
    subprocess.run([COMMAND, "sample", "--for", "1s"], check=True, cwd=tmp_path, capture_output=True)

    assert not ran.exists()


def test_only_root_can_change_the_compiled_sources(tmp_path, usual_umask):
    loader.write_sources(tmp_path)
    written = [tmp_path, *tmp_path.rglob("*")]

    assert {"connection.bpf.c", "kernel_types.h", "layout_assertions.h"} <= {path.name for path in written}
    assert {path.stat().st_uid for path in written} == {0}
    modes = {path: path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH | stat.S_IROTH) for path in written}
    assert modes.pop(tmp_path) == 0  # others cannot open it, and so cannot hold its lock
    assert set(modes.values()) == {stat.S_IROTH}


def test_without_the_service_account_root_changes_to_no_other_and_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(privileges, "ACCOUNT", "no-such-account")

    with pytest.raises(NotPermitted) as caught:
        privileges.keep_only_capabilities(())
    assert str(caught.value) == f"no account no-such-account, to which root must change: {CREATE_ACCOUNT_COMMAND}"
    assert os.geteuid() == 0


def test_no_command_starts_without_the_account(tmp_path):
    script = (
        "import sys; from watchdog.cli.main import main; from watchdog.kernel import privileges;"
        "privileges.ACCOUNT = 'no-such-account'; sys.exit(main(sys.argv[1:]))"
    )
    state = tmp_path / "state"

    for command in (["sample", "--for", "1s"], ["doctor"], ["run", "--state-dir", str(state)]):
        done = python(script, *command)
        assert done.returncode == 4
        assert CREATE_ACCOUNT_COMMAND in done.stdout + done.stderr
    assert not state.exists()


@pytest.mark.parametrize("kept", [(), (privileges.CAP_BPF,)], ids=["none", "CAP_BPF"])
def test_a_thread_that_would_keep_privileges_is_found(kept):
    script = (
        "import threading; from watchdog.kernel.privileges import keep_only_capabilities;"
        "threading.Thread(target=threading.Event().wait, daemon=True).start();"
        f"keep_only_capabilities({kept!r})"
    )
    done = python(script)

    assert done.returncode == 1
    assert "NotPermitted: a thread started earlier" in done.stderr


def test_numpy_starts_no_threads_for_any_environment():
    script = (
        "import watchdog.measure.meter, os; from watchdog.kernel.privileges import keep_only_capabilities;"
        "keep_only_capabilities(());"
        "print(len(os.listdir('/proc/self/task')))"
    )
    done = python(script, env={**os.environ, "OPENBLAS_NUM_THREADS": "4"})

    assert (done.stdout, done.stderr) == ("1\n", "")


# ------------------------------------------------------------------------------------------------------------- imports


@pytest.fixture
def package(tmp_path):
    """Return a folder with a package that has a late submodule, and a late module; pytest's folders are private."""
    package = tmp_path / "found" / "early"
    package.mkdir(parents=True)
    for file in (package / "__init__.py", package / "late.py", package.parent / "beside.py"):
        file.write_text("")
    return package


LATE = """\
import sys
sys.path.insert(0, sys.argv[1])
import early
from watchdog.kernel.privileges import keep_only_capabilities
keep_only_capabilities(())
import early.late, beside
print(early.late.__file__.startswith("/proc/self/fd/"), beside.__file__.startswith("/proc/self/fd/"))
"""


def test_imports_from_a_private_folder_still_work(package):
    done = python(LATE, str(package.parent), cwd="/")

    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_reachable_folders_stay_unchanged():
    script = (
        "import sys, os; import watchdog; from watchdog.kernel.privileges import keep_only_capabilities;"
        "before = sys.path[:], len(os.listdir('/proc/self/fd')); keep_only_capabilities(());"
        "print(before == (sys.path, len(os.listdir('/proc/self/fd'))))"
    )
    done = python(script, cwd="/", env={"PYTHONPATH": ""})
    reachable = python("import os; os.setuid(65534); import watchdog", cwd="/").returncode == 0

    assert (done.stdout, done.stderr) == (f"{reachable}\n", "")


def test_an_unreadable_package_is_reported_at_once_with_the_remedy(package):
    package.chmod(0o700)
    done = python(LATE, str(package.parent), cwd="/")

    assert f"NotPermitted: the account bpf-watchdog cannot read {package}: chmod -R go+rX {package}\n" in done.stderr


SHIPPED = """\
import sys
sys.path.insert(0, sys.argv[1])
from watchdog.kernel.privileges import keep_only_capabilities
from watchdog.rules.language.load import load_rules
keep_only_capabilities(())
from watchdog.resources import shipped_rules_folder
loaded = load_rules([shipped_rules_folder()], receivers=None)
rule = loaded.rules[0]
source = loaded.sources[rule.id]
is_linked = str(shipped_rules_folder()).startswith("/proc/self/fd/")
print(is_linked, source.origin, source.values[0].file, f"{rule.file}:{rule.line}")
"""


def test_shipped_rules_of_a_private_checkout_are_named_by_their_own_path(tmp_path):
    checkout = tmp_path / "checkout"
    for folder in ("watchdog", "rules"):
        shutil.copytree(Path(__file__).parents[2] / folder, checkout / folder)
    done = python(SHIPPED, str(checkout), cwd="/")

    file = f"{checkout}/rules/accept-queue.toml"
    assert done.stderr == ""
    linked, origin, shown, of_rule = done.stdout.split()
    assert (linked, origin) == ("True", "shipped")
    assert shown.startswith(f"{file}:")
    assert of_rule.startswith(f"{file}:")
