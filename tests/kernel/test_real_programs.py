"""Real programs: counts equal their own, to the byte."""

import json
import os
import re
import shutil
import subprocess
import time

import pytest

COOKIE_BYTES = 37  # iperf3 starts each connection with the name of the test: src/iperf.h, COOKIE_SIZE
PATIENCE_SECONDS = int(os.environ.get("WATCHDOG_PATIENCE_SECONDS", "60"))
NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 2;
events {{ worker_connections 256; }}
http {{
    log_format bytes '$connection $request_length $bytes_sent';
    access_log {folder}/access.log bytes;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    server {{ listen 127.0.0.1:8080; location / {{ return 200 "{answer}"; }} }}
}}
"""


def needed(program):
    path = shutil.which(program)
    if not path:
        pytest.skip(f"{program} is not installed")
    return path


def ended(program):
    """Return the output of a program after it has ended by itself."""
    output, errors = program.process.communicate(timeout=PATIENCE_SECONDS)
    assert program.process.returncode == 0, errors
    return output


def wait_for_listener(namespace, port):
    """Wait until a port of loopback has a listener, without connecting to it."""
    end = time.monotonic() + PATIENCE_SECONDS
    command = namespace.command("ss", "-Hltn", f"sport = {port}")
    while not subprocess.run(command, capture_output=True, check=True).stdout:
        assert time.monotonic() < end, f"nothing listens on port {port}"
        time.sleep(0.02)


def ends(rows):
    return rows.where(direction="out"), rows.where(direction="in")


def test_iperf3_and_the_watchdog_count_the_same_bytes_of_each_stream(reader, namespace):
    iperf3 = needed("iperf3")
    server = namespace.run(iperf3, "-s", "-1", "-p", 5201)
    wait_for_listener(namespace, 5201)
    # Paced, so that queues are empty at the end: iperf3 counts queued bytes as sent, and then resets the connection.
    client = namespace.run(iperf3, "-c", "127.0.0.1", "-p", 5201, "-n", "60M", "-b", "400M", "-P", 3, "-J")
    reported = json.loads(ended(client))
    server.process.communicate(timeout=PATIENCE_SECONDS)
    rows = reader.until_closed(8, netns=namespace.inode)
    out, incoming = ends(rows)

    for connected, stream in zip(reported["start"]["connected"], reported["end"]["streams"], strict=True):
        (sender,) = out.where(local_port=connected["local_port"])
        (receiver,) = incoming.where(remote_port=connected["local_port"])
        sent_bytes = stream["sender"]["bytes"] + COOKIE_BYTES
        received_bytes = stream["receiver"]["bytes"] + COOKIE_BYTES
        assert sender["bytes_sent"] == receiver["bytes_received"]
        assert sender["bytes_sent"] == sent_bytes or (
            sender["failure"] == "reset" and received_bytes <= sender["bytes_sent"] < sent_bytes
        )
    assert (out.values("process"), incoming.values("process")) == ({"iperf3"}, {"iperf3"})
    assert (out.values("pid"), incoming.values("pid")) == ({client.pid}, {server.pid})
    assert (rows.total("connects"), rows.total("accepts"), rows.total("closes")) == (
        4,
        4,
        8,
    )  # 3 and the control connection
    assert rows.total("retransmits") == namespace.totals()["RetransSegs"]


REDIS_INFO = """
import json, socket
with socket.create_connection(("127.0.0.1", 6379)) as client:
    client.sendall(b"INFO stats\\r\\n")
    answer = b""
    while not answer.endswith(b"\\r\\n") or len(answer) < 500:
        answer += client.recv(65536)
print(json.dumps({"answer": len(answer), "text": answer.decode()}), flush=True)
"""


def test_redis_and_the_watchdog_count_the_same_bytes_and_connections(reader, namespace, tmp_path):
    benchmark = needed("redis-benchmark")
    # The package of the tools contains the server under a name where it has another function.
    program = tmp_path / "redis-server"
    program.symlink_to(shutil.which("redis-server") or needed("redis-check-rdb"))
    server = namespace.run(program, "--port", 6379, "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path)
    wait_for_listener(namespace, 6379)
    ended(namespace.run(benchmark, "-n", 20_011, "-c", 13, "-d", 101, "-t", "set,get", "-q"))
    asking = namespace.run("/usr/bin/python3", "-c", REDIS_INFO)
    info = asking.receive()
    asking.end()
    reported = {name: int(value) for name, value in re.findall(r"^(total_\w+):(\d+)\r$", info["text"], re.MULTILINE)}
    connections = reported["total_connections_received"]
    rows = reader.until_closed(2 * connections, netns=namespace.inode)
    out, incoming = ends(rows)

    assert incoming.total("accepts") == out.total("connects") == connections
    assert incoming.total("bytes_received") == reported["total_net_input_bytes"]
    assert (
        incoming.total("bytes_sent") == reported["total_net_output_bytes"] + info["answer"]
    )  # not yet counted in its own answer
    assert incoming.values("pid") == {server.pid}
    assert out.values("process") == {"redis-benchmark", "python3"}


def test_nginx_and_the_watchdog_count_the_same_bytes_of_its_responses(reader, namespace, tmp_path):
    nginx, wrk = needed("nginx"), needed("wrk")
    tmp_path.chmod(0o755)
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, answer="n" * 1009))
    server = namespace.run(nginx, "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-e", tmp_path / "error.log")
    wait_for_listener(namespace, 8080)
    answered = ended(namespace.run(wrk, "-t", 2, "-c", 16, "-d", "1s", "http://127.0.0.1:8080/"))
    server.process.terminate()  # at once: nginx does not buffer this log
    server.process.communicate(timeout=PATIENCE_SECONDS)
    rows = reader.until(lambda rows: rows.total("closes") == rows.total("established"), netns=namespace.inode)
    out, incoming = ends(rows)

    log = [tuple(map(int, line.split())) for line in (tmp_path / "access.log").read_text().splitlines()]
    request, answer = (max(line[column] for line in log) for column in (1, 2))
    (requests,) = map(int, re.findall(r"(\d+) requests in", answered))
    assert requests <= len(log)
    assert incoming.total("bytes_sent") == sum(sent for _, _, sent in log)
    # wrk stops in the middle. Per connection, one last response can have no reader, and one last request no nginx.
    assert 0 <= incoming.total("bytes_sent") - out.total("bytes_received") <= len(incoming) * answer
    assert 0 <= incoming.total("bytes_received") - sum(length for _, length, _ in log) <= len(incoming) * request
    assert incoming.total("accepts") == out.total("connects") >= 16
    assert (incoming.values("process"), out.values("process")) == ({"nginx"}, {"wrk"})
