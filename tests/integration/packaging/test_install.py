"""packaging/: installation from the source tree, scripts of the Debian package, changelog of a release."""

from __future__ import annotations

import datetime as dt
import importlib.util
import io
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import zipfile
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


def test_the_licences_of_all_parts_are_installed(root):
    documents = root / "usr/local/share/doc/bpf-watchdog"
    modules = root / "usr/local/lib/bpf-watchdog/lib/python3/site-packages/watchdog"
    assert (documents / "LICENSE").read_bytes() == (CHECKOUT / "LICENSE").read_bytes()
    assert (modules / "_shipped/bpf/LICENSE").read_bytes() == (CHECKOUT / "bpf/LICENSE").read_bytes()

    assert "Files: debian/vendored/tomli/*" in (documents / "copyright").read_text()


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


@pytest.fixture(scope="module")
def release_check():
    spec = importlib.util.spec_from_file_location("release_check", PACKAGING / "release_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TODAY = dt.datetime.now(dt.UTC).date()


@pytest.mark.parametrize(
    ("changelog", "problem"),
    [
        ("## [Unreleased]\n\n## [1.2.0] - 2026-10-01\n\n- a\n", None),
        ("## [1.2.0] - 2026-10-01\n\n- a\n", None),
        ("## [Unreleased]\n\n- a\n", "no chapter ## [1.2.0] - DATE"),
        ("## [1.2.0]\n\n- a\n", "has no date"),
        ("## [1.2.0] - 2026-13-01\n\n- a\n", "has no date"),
        ("## [1.2.0] - 20261001\n\n- a\n", "has no date"),
        (f"## [1.2.0] - {TODAY + dt.timedelta(days=2)}\n\n- a\n", "has no date"),
        (f"## [1.2.0] - {TODAY}\n\n## [1.1.0] - 2026-01-01\n\n- a\n", "is empty"),
        ("## [1.2.0]\n\n- a\n\n## [1.2.0] - 2026-10-01\n\n- a\n", "several chapters"),
        ("## [Unreleased]\n\n- b\n\n## [1.2.0] - 2026-10-01\n\n- a\n", "Unreleased is not empty"),
        ("## [1.3.0] - 2026-10-02\n\n- b\n\n## [1.2.0] - 2026-10-01\n\n- a\n", "not the first one"),
    ],
)
def test_a_release_has_its_chapter_of_the_changelog(tmp_path, release_check, changelog, problem):
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog}")
    problems = list(release_check._changelog_problems(tmp_path, "1.2.0"))

    assert problems == [] if problem is None else any(problem in found for found in problems)


def test_a_release_is_one_commit_that_has_everything(tmp_path, release_check):
    def git(*arguments):
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *author, *arguments], cwd=tmp_path, check=True, capture_output=True, timeout=60)

    def problems(version="1.2.0"):
        return list(release_check._commit_problems(tmp_path, version))

    assert problems() == ["no git checkout: nobody can know later what was released"]
    git("init")
    (tmp_path / "a.py").write_text("")
    git("add", "a.py")
    git("commit", "--message=a")
    assert problems() == []
    git("tag", "v1.2.0")
    assert problems() == []
    (tmp_path / "a.py").write_text("changed")
    (tmp_path / "b.py").write_text("")
    assert problems() == ["a.py: not committed", "b.py: not committed"]
    git("add", "--all")
    git("commit", "--message=b")

    assert problems("1.2.1") == []
    [problem] = problems()
    assert "the tag v1.2.0 is on another commit" in problem
    assert [text.partition(": ")[2] for text in problems("1.3")] == ["1.3 is no version such as 1.2.3 or 1.2.3rc1"]


def test_a_release_has_the_licence_of_each_part(tmp_path, release_check):
    for name in ("LICENSE", "bpf/LICENSE", "bpf/more/a.h", "packaging/vendored.txt", "packaging/debian/copyright"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("/* SPDX-License-Identifier: GPL-2.0-only */\n" if name.endswith(".h") else "")
    assert list(release_check._license_problems(tmp_path)) == []
    (tmp_path / "bpf/LICENSE").unlink()
    (tmp_path / "bpf/more/a.h").write_text("int a;\n")
    (tmp_path / "packaging/vendored.txt").write_text("# why\n\na.b==1 --hash=sha256:0\nc>=2\n")

    assert list(release_check._license_problems(tmp_path)) == [
        "bpf/more/a.h: no line SPDX-License-Identifier: GPL-2.0-only",
        "bpf/LICENSE: missing",
        "packaging/debian/copyright: no paragraph for a.b",
        "packaging/vendored.txt: cannot read 'c>=2'",
    ]


def test_each_package_of_a_release_has_its_version_and_the_licences(tmp_path, release_check):
    def build(version, *licenses):
        for old in tmp_path.iterdir():
            old.unlink()
        metadata = f"Metadata-Version: 2.4\nName: bpf-watchdog\nVersion: {version}\n"
        with zipfile.ZipFile(tmp_path / "bpf_watchdog-1.2.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"bpf_watchdog-{version}.dist-info/METADATA", metadata)
            for name in licenses:
                wheel.writestr(f"bpf_watchdog-{version}.dist-info/licenses/{name}", "")
        with tarfile.open(tmp_path / "bpf_watchdog-1.2.0.tar.gz", "w:gz") as source:
            for name in ("PKG-INFO", *licenses):
                member = tarfile.TarInfo(f"bpf_watchdog-1.2.0/{name}")
                member.size = len(metadata)
                source.addfile(member, io.BytesIO(metadata.encode()))
        facts = {"metadata": {"component": {"version": version}}}
        (tmp_path / "bpf-watchdog_1.2.0.cdx.json").write_text(json.dumps(facts))
        return list(release_check._version_problems(tmp_path, "1.2.0"))

    no_deb = "0 packages *.deb were built, not 1"
    assert build("1.2.0", "LICENSE", "bpf/LICENSE") == [no_deb]
    assert build("1.1.9", "LICENSE") == [
        "bpf-watchdog_1.2.0.cdx.json: its version is 1.1.9, not 1.2.0",
        no_deb,
        "bpf_watchdog-1.2.0.tar.gz: its version is 1.1.9, not 1.2.0",
        "bpf_watchdog-1.2.0.tar.gz: no bpf/LICENSE",
        "bpf_watchdog-1.2.0-py3-none-any.whl: its version is 1.1.9, not 1.2.0",
        "bpf_watchdog-1.2.0-py3-none-any.whl: no bpf/LICENSE",
    ]
