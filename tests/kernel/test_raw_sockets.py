"""Sockets of protocol 6 that are not TCP have no row: behind them is other memory than a tcp_sock."""

import contextlib
import socket

import pytest

TCP_PROTOCOL = socket.IPPROTO_TCP  # a raw socket has its protocol as local port


@pytest.mark.parametrize(
    ("family", "address"),
    [pytest.param(socket.AF_INET, "127.0.0.1", marks=pytest.mark.everywhere), (socket.AF_INET6, "::1")],
)
def test_raw_sockets_of_protocol_tcp_have_no_row(reader, family, address):
    """connect() puts them into state ESTABLISHED, as traceroute -T and scanners do."""
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            raw = stack.enter_context(socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP))
            raw.connect((address, 0))
            raw.send(bytes(20))
        server = stack.enter_context(socket.create_server((address, 0), family=family))
        stack.enter_context(socket.create_connection(server.getsockname()[:2]))
        rows = reader.until(lambda rows: rows.where(remote_port=server.getsockname()[1]).total("connects") == 1)

        assert rows.where(remote_port=server.getsockname()[1]).total("connects") == 1
        assert len(rows.where(local_port=TCP_PROTOCOL)) == 0
