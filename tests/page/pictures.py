"""Take the pictures of the status page for docs/images/: a host with hostile names. `make pictures` runs it."""

from __future__ import annotations

import socket
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "peers")]

from headless_browser import HeadlessBrowser  # noqa: E402 - the path is set above
from status_views import hostile_view  # noqa: E402

from watchdog.config.web_settings import WebSettings  # noqa: E402
from watchdog.web.status_page import StatusPage  # noqa: E402
from watchdog.web.web_server import WebServer  # noqa: E402

FOLDER = TESTS.parent / "docs" / "images"
PICTURES = {
    "status-page-light.png": ("", 1280, 900, False),
    "status-page-dark.png": ("#rules", 1280, 900, True),
    "status-page-phone.png": ("#rules", 360, 900, False),
}
"""By file name: the part of the page, width and height in pixels, and whether the scheme is dark."""


def main() -> int:
    """Write the pictures; with a folder as argument, the whole pages there."""
    folder, whole = (Path(sys.argv[1]), True) if len(sys.argv) > 1 else (FOLDER, False)
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = WebServer(WebSettings("127.0.0.1", port), tuple, {"/": StatusPage(hostile_view).page})
    server.start()
    try:
        with tempfile.TemporaryDirectory() as profile, HeadlessBrowser(Path(profile)) as browser:
            for name, (part, width, height, dark) in PICTURES.items():
                browser.open(f"http://127.0.0.1:{port}/{part}", width, height, dark=dark)
                browser.take_picture(folder / name, whole=whole)
                print(folder / name)
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
