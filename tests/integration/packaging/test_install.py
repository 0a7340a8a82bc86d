"""packaging/: installation from the source tree, scripts of the Debian package, changelog of a release."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from watchdog import __version__
from watchdog.kernel.privileges import CREATE_ACCOUNT_COMMAND
from watchdog.storage.schema import SCHEMA_STEPS

CHECKOUT = Path(__file__).resolve().parents[3]
PACKAGING = CHECKOUT / "packaging"


def run(*command, **environment):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment or None)


def install(root, *options):
    vendored = root.parent / "vendored"
    if not vendored.exists():
        shutil.copytree(Path(tomli.__file__).parent, vendored / "tomli", ignore=shutil.ignore_patterns("*.so", "*.pyc"))
    environment = {"PATH": "/usr/bin:/bin", "DESTDIR": str(root), "PREFIX": "/usr/local", "VENDORED": str(vendored)}
    private = ["/bin/sh", "-c", 'umask 077; exec "$0" "$@"']
    done = run(*private, PACKAGING / "install", *options, **environment)
    assert (done.returncode, done.stderr) == (0, "")


def files(root):
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_symlink() or not path.is_dir()}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return the root folder of an installation below /usr/local; its settings were changed before a second one."""
    root = tmp_path_factory.mktemp("installation") / "the root"
    install(root, "--no-compile")
    (root / "etc/bpf-watchdog/watchdog.toml").write_text("# by hand\n")
    install(root)
    return root


@pytest.mark.timeout(180)
def test_an_installation_runs_with_the_systems_python(root):
    program = root / "usr/local/lib/bpf-watchdog"
    script = """
import tomli, watchdog
from watchdog.resources import bpf_folder, shipped_rules_folder
print(watchdog.__version__, tomli.__file__, bpf_folder(), shipped_rules_folder(), sep="\\n")
"""
    version, *paths = run(program / "bin/python3", "-I", "-c", script).stdout.splitlines()

    assert version == __version__
    assert [Path(path).is_relative_to(program) for path in paths] == [True] * 3
    command = (root / "usr/local/bin/bpf-watchdog").read_text()
    assert command.startswith("#!/usr/local/lib/bpf-watchdog/bin/python3 -I\n")
    unit = (root / "usr/local/lib/systemd/system/bpf-watchdog.service").read_text()
    assert re.findall(r"^Exec\w+=(\S+)", unit, re.MULTILINE) == ["/usr/local/bin/bpf-watchdog"] * 2


def test_an_installation_has_every_file_of_the_program_and_no_other(root):
    modules = root / "usr/local/lib/bpf-watchdog/lib/python3/site-packages/watchdog"
    expected = {
        f"_shipped/{folder}/{path.name}" for folder in ("bpf", "rules") for path in (CHECKOUT / folder).iterdir()
    }
    expected |= {name for name in files(CHECKOUT / "watchdog") if "__pycache__" not in name}

    assert {name for name in files(modules) if "__pycache__" not in name} == expected


@pytest.mark.parametrize("prefix", ["/opt/our programs", "usr", "/opt/a#b", "/opt/a&b"])
def test_a_prefix_that_no_first_line_of_a_script_can_have_is_refused(tmp_path, prefix):
    done = run(
        PACKAGING / "install", PATH="/usr/bin:/bin", DESTDIR=str(tmp_path), PREFIX=prefix, VENDORED=str(tmp_path)
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"PREFIX must be an absolute path of letters, digits and / . _ + -, not '{prefix}'\n"
    assert not files(tmp_path)


def test_the_completions_are_where_a_shell_reads_them(root):
    path = "usr/local/share/zsh/site-functions"
    assert f"/{path}" in run("zsh", "-fc", "print -l $fpath").stdout.splitlines()

    assert (root / path / "_bpf-watchdog").is_file()


@pytest.mark.parametrize(
    ("arguments", "first_line"),
    [(["run"], "bpf-watchdog: Python module missing for {python}: numpy: install python3-numpy "),
     (["doctor"], "missing modules        Python modules missing for {python}: apscheduler, numpy, ")],
)  # fmt: skip
def test_a_missing_module_is_named_with_its_package(root, arguments, first_line):
    python = root / "usr/local/lib/bpf-watchdog/bin/python3"
    # Without the distribution's modules. -S: not even those of this host.
    modules = root / "usr/local/lib/bpf-watchdog/lib/python3/site-packages"
    start = f"import sys; sys.path.append({str(modules)!r}); from watchdog.cli.main import main; sys.exit(main())"
    done = run(python, "-I", "-S", "-c", start, *arguments)

    assert done.returncode == 4
    assert (done.stdout + done.stderr).startswith(first_line.format(python=python))


def test_everybody_can_read_what_is_installed(root):
    for path in (root / "usr").rglob("*"):
        mode = path.stat().st_mode if path.exists() else 0o755
        assert mode & 0o044 == 0o044, path
        assert mode & 0o022 == 0, path


def test_a_second_installation_keeps_changed_settings_and_a_removal_too(root):
    settings = root / "etc/bpf-watchdog/watchdog.toml"
    assert settings.read_text() == "# by hand\n"
    install(root, "--uninstall")

    assert files(root) == {"etc/bpf-watchdog/watchdog.toml"}


def test_the_settings_of_the_package_are_valid():
    done = run(sys.executable, "-m", "watchdog", "check", PACKAGING / "watchdog.toml")

    assert (done.returncode, done.stderr) == (0, "1 file, no rules: no problems, no notes\n")


# ------------------------------------------------------------------------------------------------------ Debian package


@pytest.fixture
def preinst(tmp_path):
    """Return a function that runs the script with a state file and an installed program of given versions."""

    def run_preinst(action, state_version, installed_version=None):
        text = (PACKAGING / "debian/bpf-watchdog.preinst").read_text()
        script = tmp_path / "preinst"
        text = text.replace("/var/lib/bpf-watchdog", str(tmp_path)).replace("/usr/lib/bpf-watchdog", str(tmp_path))
        script.write_text(text.replace("#STATE_VERSION#", str(len(SCHEMA_STEPS))))
        if installed_version is not None:
            (tmp_path / "state-version").write_text(f"{installed_version}\n")
        if state_version is not None:
            connection = sqlite3.connect(tmp_path / "state.sqlite3")
            connection.execute("CREATE TABLE content (text)")
            connection.execute(f"PRAGMA user_version = {state_version}")
            connection.close()
        return run("/bin/sh", script, action, "1.0")

    return run_preinst


@pytest.mark.parametrize("action", ["install", "upgrade"])
@pytest.mark.parametrize(
    ("state", "installed"), [(len(SCHEMA_STEPS) + 1, None), (70_000, 1), (1, len(SCHEMA_STEPS) + 1)]
)
def test_a_package_that_cannot_read_the_state_file_is_not_installed(preinst, action, state, installed):
    done = preinst(action, state, installed)

    assert done.returncode == 1
    assert f"(file version {max(state, installed or 0)}; this package knows up to {len(SCHEMA_STEPS)})" in done.stderr


@pytest.mark.parametrize(
    ("state", "installed"),
    [(None, None), (None, 9_999), (len(SCHEMA_STEPS), len(SCHEMA_STEPS)), (1, None), (0, 1)],
)
def test_a_package_that_can_read_the_state_file_is_installed(preinst, state, installed):
    done = preinst("upgrade", state, installed)

    assert (done.returncode, done.stderr) == (0, "")


def test_every_way_to_make_the_account_gives_the_same_number():
    number = re.search(r"--uid (\d+)", CREATE_ACCOUNT_COMMAND)[1]

    assert f"u bpf-watchdog {number} " in (PACKAGING / "systemd/bpf-watchdog.sysusers").read_text()
    assert f"--uid {number}'" in (PACKAGING / "ensure-account").read_text()
    assert not 100 <= int(number) <= 999


# -------------------------------------------------------------------------------------------------------------- release


@pytest.mark.parametrize(
    ("changelog", "problem"),
    [
        ("## [Unreleased]\n\n## [1.2.0] - 2026-12-01\n\n- a\n", None),
        ("## [1.2.0] - 2026-12-01\n\n- a\n", None),
        ("## [Unreleased]\n\n- a\n", "no chapter ## [1.2.0] - DATE"),
        ("## [1.2.0]\n\n- a\n", "has no date"),
        ("## [Unreleased]\n\n- b\n\n## [1.2.0] - 2026-12-01\n\n- a\n", "Unreleased is not empty"),
        ("## [1.3.0] - 2026-12-02\n\n- b\n\n## [1.2.0] - 2026-12-01\n\n- a\n", "not the first one"),
    ],
)
def test_a_release_has_its_chapter_of_the_changelog(tmp_path, changelog, problem):
    spec = importlib.util.spec_from_file_location("release_check", PACKAGING / "release_check.py")
    release_check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(release_check)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog}")
    problems = list(release_check._changelog_problems(tmp_path, "1.2.0"))

    assert problems == [] if problem is None else any(problem in found for found in problems)
