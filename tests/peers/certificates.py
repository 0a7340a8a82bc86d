"""Certificates for the servers and clients of a test."""

from __future__ import annotations

import subprocess
from pathlib import Path

AUTHORITY = ("-addext", "basicConstraints=critical,CA:TRUE")


def make_certificates(folder: Path) -> Path:
    """Make an authority, certificates for a server (localhost) and a client, and a self-signed one for a stranger."""
    make_certificate(folder, "ca", "our authority", AUTHORITY)
    signed = ("-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-addext", "basicConstraints=CA:FALSE")
    make_certificate(folder, "server", "localhost", (*signed, "-addext", "subjectAltName=DNS:localhost"))
    make_certificate(folder, "client", "client.example", (*signed, "-addext", "subjectAltName=DNS:client.example"))
    make_certificate(folder, "stranger", "localhost", ("-addext", "subjectAltName=DNS:localhost"))
    return folder


def make_certificate(folder: Path, name: str, subject: str, options: tuple[str | Path, ...]) -> None:
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")
    files = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")
    command = ["openssl", "req", "-x509", *new, "-subj", f"/CN={subject}", *files, *options]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    (folder / f"{name}.key").chmod(0o600)
