"""Run the tests of the HTTP transport with each supported version of requests and urllib3: `make test-versions`.

The versions are unpacked once into folders below build/versions/. Names as arguments: only these, as `requests-2.28.1`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "build/versions"
# The oldest of both, Debian 12, the last one without get_connection_with_tls_context, Debian 13.
VERSIONS = {
    "requests-2.28.1": ("requests==2.28.1", "urllib3==1.26.12"),
    "requests-2.31.0": ("requests==2.31.0", "urllib3==2.0.7"),
    "requests-2.32.3": ("requests==2.32.3", "urllib3==2.3.0"),
    "requests-newest": ("requests>=2.33,<3", "urllib3>=2.7,<3"),
}
TESTS = (
    "tests/unit/receivers",
    "tests/integration/receivers/test_http.py",
    "tests/integration/receivers/test_endless_answers.py",
    "tests/integration/receivers/test_isolation.py",
    "tests/integration/receivers/test_metadata_services.py",
    "tests/integration/receivers/test_rebinding.py",
)


def main() -> int:
    """Run the tests; return the exit code."""
    failed = []
    for name, requirements in VERSIONS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        folder = FOLDER / name
        if not (folder / "requests").is_dir():
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
            subprocess.run([*pip, "--no-compile", "--target", str(folder), *requirements], check=True)
        print(f"== {', '.join(requirements)}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
        environment = os.environ | {"PYTHONPATH": str(folder)}
        if subprocess.run(command, cwd=CHECKOUT, env=environment, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
