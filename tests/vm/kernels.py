"""The stock kernels of the tests, and their download: from Debian, verified by apt, without installation."""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).parents[2] / "build" / "kernels"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Unavailable(Exception):
    """A needed package cannot be downloaded from the archive; the text has its name and the reason."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A series of kernels, its suite, and its packages: a POSIX regular expression for each."""

    series: str
    suite: str
    packages: tuple[str, ...]
    tests: str = "tests/kernel"


KERNELS = (
    Kernel("5.10", "bullseye", ("linux-image-5[.]10[.]0-[0-9]+-amd64",), "tests/vm/refusal"),
    Kernel("6.1", "bookworm", ("linux-image-6[.]1[.]0-[0-9]+-amd64",)),
    Kernel("6.12", "trixie", ("linux-image-6[.]12[.][0-9]+[+]deb13-amd64",)),
    # Two packages since 7.x: the image, and its modules.
    Kernel(
        "7.3",
        "trixie-backports",
        ("linux-binary-7[.]3[.][0-9]+[+]deb13-amd64", "linux-modules-7[.]3[.][0-9]+[+]deb13-amd64"),
    ),
)


def kernel_root(kernel: Kernel) -> Path:
    """Return the folder of an unpacked kernel, with boot/ and lib/modules/; download it if it is missing.

    Raises:
        Unavailable: the archive does not have this kernel.
    """
    root = CACHE / kernel.series
    if not root.exists():
        unpacked = _unpack(kernel.suite, kernel.packages)
        (release,) = (entry.name for entry in (unpacked / "lib/modules").iterdir())
        _run("depmod", "--basedir", str(unpacked), release)
        unpacked.rename(root)
    return root


def virtme_path() -> Path:
    """Return the folder with the Python package virtme-ng; Debian has it since 13, and it also runs on 12."""
    root = CACHE / "virtme-ng"
    if not root.exists():
        _unpack("trixie", ("virtme-ng",)).rename(root)
    return root / "usr/lib/python3/dist-packages"


def _unpack(suite: str, patterns: tuple[str, ...]) -> Path:
    """Download the newest packages of a suite that match, and unpack them into one new folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=CACHE))
    (root / "usr/lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")  # as on every Debian since 12, also for older packages
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=CACHE) as folder:
        environment = {"APT_CONFIG": str(_configure_apt(Path(folder), suite))}
        print(f"downloading {' and '.join(patterns)} from {suite}", flush=True)
        _run("apt-get", "--quiet", "update", environment=environment)
        for pattern in patterns:
            found = _run("apt-cache", "search", "--names-only", f"^{pattern}$", environment=environment).splitlines()
            if not found:
                raise Unavailable(f"{suite} has no package {pattern}")
            newest = max((line.split()[0] for line in found), key=lambda name: list(map(int, re.findall(r"\d+", name))))
            _run("apt-get", "--quiet", "download", newest, environment=environment, folder=folder)
        for package in Path(folder).glob("*.deb"):
            archive = package.with_suffix(".tar")
            _run("sh", "-c", 'dpkg-deb --fsys-tarfile "$1" >"$2"', "sh", str(package), str(archive))
            _run("tar", "--extract", "--keep-directory-symlink", f"--directory={root}", f"--file={archive}")
    root.chmod(0o755)
    return root


def _configure_apt(folder: Path, suite: str) -> Path:
    """Configure apt with its own state in `folder` and one suite, with the mirrors of the host's sources."""
    (folder / "lists/partial").mkdir(parents=True)
    (folder / "archives/partial").mkdir(parents=True)
    (folder / "status").touch()
    release = _run("sh", "-c", '. /etc/os-release && echo "$ID $VERSION_CODENAME"').split()
    lines = _run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages").splitlines()
    mirrors = {of_suite: mirror for mirror, of_suite in map(str.split, lines)}
    if release[0] != "debian" or not {release[1], f"{release[1]}-security"} <= mirrors.keys():
        raise Unavailable(f"this needs Debian, with {release[1]} and {release[1]}-security among the sources of apt")
    wanted = [(mirrors[release[1]], suite)]
    if not suite.endswith("-backports"):
        wanted.append((mirrors[f"{release[1]}-security"], f"{suite}-security"))
    sources = "".join(f"deb [signed-by={KEYRING}] {mirror} {of_suite} main\n" for mirror, of_suite in wanted)
    (folder / "sources.list").write_text(sources, encoding="ascii")
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",  # apt's own user cannot write here
        "Acquire::Languages": "none",
        "Acquire::Retries": 3,
    }
    config = folder / "apt.conf"
    config.write_text("".join(f'{name} "{value}";\n' for name, value in settings.items()), encoding="utf-8")
    return config


def _run(*command: str, environment: dict[str, str] | None = None, folder: str | None = None) -> str:
    done = subprocess.run(
        command, env=os.environ | (environment or {}), cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
