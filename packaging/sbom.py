"""Print the list of parts of the Debian package, a CycloneDX document in JSON, the same bytes for the same source.

usage: sbom.py SOURCE   environment: SOURCE_DATE_EPOCH
"""

import datetime as dt
import os
import re
import sys
import uuid
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression
from cyclonedx.output.json import JsonV1Dot5
from packageurl import PackageURL

_LICENSES = {"tomli": "MIT"}  # a new module in vendored.txt needs its own here, and a paragraph in debian/copyright
_VENDORED = re.compile(r"(?P<name>[\w-]+)==(?P<version>[\w.]+) --hash=sha256:(?P<sha256>[0-9a-f]{64})")


def main() -> None:
    """Print the document."""
    source = Path(sys.argv[1])
    version = re.search(r'^__version__ = "(.+)"$', (source / "watchdog/__init__.py").read_text("utf-8"), re.MULTILINE)
    if version is None:
        sys.exit("watchdog/__init__.py has no __version__")
    print(_document(version[1], (source / "packaging/vendored.txt").read_text("utf-8")))


def _document(version: str, vendored: str) -> str:
    package = Component(
        type=ComponentType.APPLICATION,
        name="bpf-watchdog",
        version=version,
        bom_ref="bpf-watchdog",
        licenses=[LicenseExpression("Apache-2.0 AND GPL-2.0-only")],
        purl=PackageURL("deb", None, "bpf-watchdog", version, {"arch": "all"}),
    )
    programs = Component(
        type=ComponentType.APPLICATION,
        name="bpf-watchdog BPF programs",
        version=version,
        bom_ref="bpf-watchdog-bpf",
        licenses=[DisjunctiveLicense(id="GPL-2.0-only")],
    )
    lines = filter(None, (line.partition("#")[0].strip() for line in vendored.splitlines()))
    parts = [programs, *map(_component, lines)]
    bom = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"bpf-watchdog {version} {vendored}"))
    bom.metadata.component = package
    bom.metadata.timestamp = dt.datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), dt.UTC)
    bom.register_dependency(package, parts)
    text: str = JsonV1Dot5(bom).output_as_string(indent=2)
    return text


def _component(line: str) -> Component:
    module = _VENDORED.fullmatch(line)
    if module is None:
        sys.exit(f"packaging/vendored.txt: not of the form NAME==VERSION --hash=sha256:HASH: {line}")
    if module["name"] not in _LICENSES:
        sys.exit(f"packaging/sbom.py: no licence for {module['name']}")
    return Component(
        type=ComponentType.LIBRARY,
        name=module["name"],
        version=module["version"],
        bom_ref=f"pypi-{module['name']}",
        licenses=[DisjunctiveLicense(id=_LICENSES[module["name"]])],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=module["sha256"])],
        purl=PackageURL("pypi", None, module["name"], module["version"]),
    )


if __name__ == "__main__":
    main()
