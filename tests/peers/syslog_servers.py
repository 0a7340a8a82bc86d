"""Syslog servers from Debian as processes of a test.

rsyslog listens with both of its TLS libraries, syslog-ng with each of its transports. Each writes the parsed records as
JSON to its own file.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from ports import free_port

TIMEOUT_SECONDS = 15.0
SYSLOG_NG = Path(__file__).parents[2] / ".venv/syslog-ng"

RSYSLOG = """
global(defaultNetstreamDriverCAFile="{certificates}/ca.pem"
       defaultNetstreamDriverCertFile="{certificates}/server.pem"
       defaultNetstreamDriverKeyFile="{certificates}/server.key")
module(load="imtcp")
template(name="facts" type="list" option.jsonf="on") {{
    property(outname="pri" name="pri" format="jsonf")
    property(outname="msgid" name="msgid" format="jsonf")
    property(outname="data" name="structured-data" format="jsonf")
    property(outname="raw" name="rawmsg" format="jsonf")
}}
input(type="imtcp" address="127.0.0.1" port="{gtls}" streamDriver.name="gtls" streamDriver.mode="1"
      streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="{gtls_client}" streamDriver.name="gtls" streamDriver.mode="1"
      streamDriver.authMode="x509/name" permittedPeer=["client.example"])
input(type="imtcp" address="127.0.0.1" port="{ossl}" streamDriver.name="ossl" streamDriver.mode="1"
      streamDriver.authMode="anon")
input(type="imtcp" address="127.0.0.1" port="{ossl_client}" streamDriver.name="ossl" streamDriver.mode="1"
      streamDriver.authMode="x509/name" permittedPeer=["client.example"])
action(type="omfile" file="{folder}/arrived" template="facts")
"""
NG = """
@version: 3.38
options {{ stats-freq(0); frac-digits(3); keep-hostname(yes); log-msg-size(65536); }};
source arriving {{
    unix-dgram("{folder}/socket" flags(syslog-protocol, store-raw-message));
    network(ip("127.0.0.1") transport("udp") port({udp}) flags(syslog-protocol, store-raw-message));
    network(ip("127.0.0.1") transport("tcp") port({lf}) flags(syslog-protocol, store-raw-message));
    syslog(ip("127.0.0.1") transport("tcp") port({tcp}) flags(store-raw-message));
    syslog(ip("127.0.0.1") transport("tls") port({tls}) flags(store-raw-message) tls(
        key-file("{certificates}/server.key") cert-file("{certificates}/server.pem")
        ca-file("{certificates}/ca.pem") peer-verify(optional-untrusted)));
    syslog(ip("127.0.0.1") transport("tls") port({tls_client}) flags(store-raw-message) tls(
        key-file("{certificates}/server.key") cert-file("{certificates}/server.pem")
        ca-file("{certificates}/ca.pem") peer-verify(required-trusted)));
}};
destination arrived {{
    file("{folder}/arrived" template("$(format-json pri=\\"${{PRI}}\\" time=\\"${{S_ISODATE}}\\" host=\\"${{HOST}}\\"
        app=\\"${{PROGRAM}}\\" procid=\\"${{PID}}\\" msgid=\\"${{MSGID}}\\" msg=\\"${{MSG}}\\" raw=\\"${{RAWMSG}}\\"
        --key .SDATA.*)\\n"));
}};
log {{ source(arriving); destination(arrived); }};
"""


class SyslogServer:
    """A syslog server process that writes the parsed records to a file, one JSON document per line."""

    wires: tuple[str, ...]

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.folder = folder
        self.certificates = certificates
        self.ports = {
            wire: free_port(socket.SOCK_DGRAM if wire == "udp" else socket.SOCK_STREAM) for wire in self.wires
        }
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            self.command(), stdout=self._log, stderr=self._log, cwd=folder, env={**os.environ, **self.environment()}
        )
        wait_until(lambda: all(self._listens(wire) for wire in self.wires), f"the server to listen: {folder}/log")

    def command(self) -> list[str | Path]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT_SECONDS)
        self._log.close()

    def arrived(self, count: int) -> list[dict]:
        """Wait for `count` records; return all records that have arrived."""
        file = self.folder / "arrived"
        wait_until(lambda: file.exists() and file.read_bytes().count(b"\n") >= count, f"{count} records to arrive")
        return [json.loads(line) for line in file.read_text().splitlines()]

    def _listens(self, wire: str) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text()
        table = Path("/proc/net/udp" if wire == "udp" else "/proc/net/tcp").read_text()
        return f"0100007F:{self.ports[wire]:04X} 00000000:0000" in table


class RsyslogTls(SyslogServer):
    wires = ("gtls", "gtls_client", "ossl", "ossl_client")

    def command(self) -> list[str | Path]:
        program = shutil.which("rsyslogd", path="/usr/sbin:/sbin:" + os.environ["PATH"])
        assert program is not None, "these tests need rsyslog: apt-get install rsyslog rsyslog-gnutls rsyslog-openssl"
        file = self.folder / "rsyslog.conf"
        file.write_text(RSYSLOG.format(folder=self.folder, certificates=self.certificates, **self.ports))
        return [program, "-n", "-f", file, "-i", self.folder / "pid"]


class SyslogNg(SyslogServer):
    wires = ("udp", "lf", "tcp", "tls", "tls_client")

    def command(self) -> list[str | Path]:
        program = SYSLOG_NG / "usr/sbin/syslog-ng"
        assert program.exists(), "these tests need syslog-ng: make setup-dev"
        file = self.folder / "syslog-ng.conf"
        file.write_text(
            NG.format(folder=self.folder, certificates=self.certificates, **self.ports).replace("\n        ", " ")
        )
        [modules] = (SYSLOG_NG / "usr/lib/syslog-ng").glob("[0-9]*")
        options = [f"--{name}={self.folder}/{name}" for name in ("persist-file", "pidfile", "control")]
        return [program, "-F", "--no-caps", f"--cfgfile={file}", f"--module-path={modules}", *options]

    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(SYSLOG_NG / "usr/lib/syslog-ng")}

    def arrived(self, count: int) -> list[dict]:
        """Return the records, with the structured data under `data` as from rsyslog."""
        return [{"data": record.pop("_SDATA"), **record} for record in super().arrived(count)]


def wait_until(condition, expected: str) -> None:
    end = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < end, f"timeout while waiting for {expected}"
        time.sleep(0.02)
