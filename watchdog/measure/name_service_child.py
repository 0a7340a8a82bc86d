"""The child process of `name_service.py`: asks the name service of the host (NSS) for names of users."""

from __future__ import annotations

import os
import pwd


def main() -> None:
    """Answer each request, a line "NUMBER UID", by a line "NUMBER NAME": in hexadecimal, "-" without such a user."""
    os.closerange(3, 65_536)  # descriptors that the daemon inherited
    os.write(1, b"0\n")
    unread = b""
    while chunk := os.read(0, 4_096):
        *requests, unread = (unread + chunk).split(b"\n")
        for request in requests:
            number, uid = request.decode().split()
            os.write(1, f"{number} {_name(int(uid))}\n".encode())


def _name(uid: int) -> str:
    try:
        return os.fsencode(pwd.getpwuid(uid).pw_name).hex() or "-"
    except (KeyError, OSError, OverflowError):
        return "-"


if __name__ == "__main__":
    main()
