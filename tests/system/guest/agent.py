"""Runs in the guest as a service: executes the scripts that arrive at a virtio port, and answers with their output.

A request is a line of JSON {"id", "script"}, an answer {"id", "code", "output"}. The first line after each boot is
{"boot"}: the id of the boot.
"""

import json
import os
import subprocess
import time
from pathlib import Path

PORT = Path("/dev/virtio-ports/agent")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def main() -> None:
    """Serve until the guest is off."""
    while not PORT.exists():
        time.sleep(0.1)
    port = os.open(PORT, os.O_RDWR)
    send(port, {"boot": BOOT_ID.read_text(encoding="ascii").strip()})
    pending = b""
    while True:
        data = os.read(port, 65536)
        if not data:  # the host is not connected
            time.sleep(0.1)
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            done = subprocess.run(
                ["/bin/bash", "-c", request["script"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            output = done.stdout.decode(errors="replace")
            send(port, {"id": request["id"], "code": done.returncode, "output": output})


def send(port: int, message: dict[str, object]) -> None:
    """Write one line."""
    left = json.dumps(message).encode() + b"\n"
    while left:
        left = left[os.write(port, left) :]


if __name__ == "__main__":
    main()
