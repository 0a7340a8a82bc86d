"""Libraries that go past the guards of the transport are refused when they are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each is a thing that a version of the libraries could do.
CONNECTS_ITSELF = """
from urllib3 import connection, connectionpool
def connect(pool):
    return connection.HTTPConnection(pool.host, pool.port, timeout=1)
connectionpool.HTTPConnectionPool._new_conn = connect
"""
TLS_CONNECTS_ITSELF = """
from urllib3 import connection, connectionpool
def connect(pool):
    return connection.HTTPSConnection(pool.host, pool.port, timeout=1)
connectionpool.HTTPSConnectionPool._new_conn = connect
"""
TAKES_ANOTHER_ADAPTER = """
import requests
requests.Session.get_adapter = lambda self, url: requests.adapters.HTTPAdapter()
"""
READS_ITSELF = """
import http.client, urllib3.connection
read = urllib3.connection.HTTPConnection.getresponse
def getresponse(self, *args, **options):
    self.response_class = http.client.HTTPResponse
    return read(self, *args, **options)
urllib3.connection.HTTPConnection.getresponse = getresponse
"""
SENDS_WITHOUT_REQUEST = """
import http.client, urllib3.connectionpool
from urllib3 import connectionpool
make = connectionpool.HTTPConnectionPool._make_request
def _make_request(self, conn, *args, **options):
    conn.request = super(type(conn), conn).request
    return make(self, conn, *args, **options)
connectionpool.HTTPConnectionPool._make_request = _make_request
"""


def import_transport(change):
    script = f"""
{change}
from watchdog.errors import WatchdogError
try:
    import watchdog.receivers.transport.http
except WatchdogError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_libraries_of_this_environment_are_accepted():
    assert import_transport("") == ""


@pytest.mark.parametrize(
    "change", [CONNECTS_ITSELF, TLS_CONNECTS_ITSELF, TAKES_ANOTHER_ADAPTER, READS_ITSELF, SENDS_WITHOUT_REQUEST]
)
def test_libraries_that_go_past_a_guard_are_refused(change):
    text = import_transport(change)

    assert "deadlines and refused addresses would not hold: install requests 2.28 to 2.x" in text
    assert text.startswith("cannot send with requests 2.")
