"""Runs in the guest: a webhook server that appends each body, with path and id of the request, as a line to a file.

usage: webhook.py PORT FILE
"""

import http.server
import json
import sys
from pathlib import Path


class Recorder(http.server.BaseHTTPRequestHandler):
    """Records and accepts each POST."""

    def do_POST(self) -> None:
        """Append the body to the file, then answer 200."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with Path(sys.argv[2]).open("a", encoding="utf-8") as file:
            file.write(
                json.dumps({"path": self.path, "notification_id": self.headers["X-Notification-Id"], **body}) + "\n"
            )
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Recorder).serve_forever()
