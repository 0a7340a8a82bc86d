from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading

import pytest


class Inbox:
    """A webhook server; `documents`: every body that arrived, in order, added before the response is sent."""

    def __init__(self):
        inbox = self
        self.documents = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                inbox.documents.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    pass  # the sender was killed

            def log_message(self, *arguments):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass  # the sender was killed during its request

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def inbox():
    inbox = Inbox()
    yield inbox
    inbox.close()


@pytest.fixture
def small_disk(tmp_path, request):
    """Mount a file system of 4 MiB, or of the size in the test's parameter."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    size = getattr(request, "param", "4m")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)
