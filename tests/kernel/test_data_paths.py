"""Bytes count once, by whatever way they enter and leave a socket: the generators' own counts are the truth."""

import pytest


def flow(rows):
    """Return bytes sent and received of the client's end, then of the server's."""
    out, incoming = rows.where(direction="out"), rows.where(direction="in")
    return [end.total(name) for end in (out, incoming) for name in ("bytes_sent", "bytes_received")]


def assert_totals_are_the_kernels(rows, totals):
    """Hold the sums of all rows of a network namespace against the kernel's own counters of it."""
    assert rows.total("connects") == totals["ActiveOpens"]
    assert rows.where(direction="in").total("established") == totals["PassiveOpens"]
    assert rows.total("retransmits") == totals["RetransSegs"]


@pytest.mark.parametrize(
    ("path", "cut_short"),
    [
        ("send", False),
        ("send-timeout", True),
        ("nonblocking", True),
        ("sendfile", False),
        ("splice-in", False),
        ("splice-out", False),
        ("zerocopy", False),
        ("urgent", False),
        ("discard", False),
    ],
)
def test_each_way_into_and_out_of_a_socket_counts_every_byte_once(reader, namespace, generator, path, cut_short):
    traffic = namespace.run(generator("data_paths"), path)
    said = traffic.hear()
    expected = [said["sent"], 0, 0, said["sent"]]
    alive = reader.until(lambda rows: flow(rows) == expected, netns=namespace.inode)
    traffic.end()
    rows = reader.until_closed(2, netns=namespace.inode)

    assert said["received"] == said["sent"]
    assert (said["cut_short"] > 0) == cut_short
    assert flow(alive) == expected
    assert alive.where(direction="in").values("state") == {"CLOSE_WAIT"}  # the client's FIN is there, and is no byte
    assert flow(rows) == expected
    assert rows.values("pid") == {traffic.pid}
    assert_totals_are_the_kernels(rows, namespace.totals())
    assert not any(reader.quality.values())


def test_bytes_by_io_uring_count_once(reader, namespace, generator):
    traffic = namespace.run(generator("uring"), "files")
    said = traffic.hear()
    expected = [said["sent"], 0, 0, said["sent"]]
    alive = reader.until(lambda rows: flow(rows) == expected, netns=namespace.inode)
    traffic.end()
    rows = reader.until_closed(2, netns=namespace.inode)

    assert said["received"] == said["sent"]
    assert flow(alive) == flow(rows) == expected
    assert rows.values("pid") == {traffic.pid}
    assert_totals_are_the_kernels(rows, namespace.totals())


@pytest.mark.parametrize("ended_by", ["fixed", "exit"])
def test_sockets_that_only_a_ring_holds_count_at_their_end_at_the_process_that_made_them(
    reader, namespace, generator, ended_by
):
    traffic = namespace.run(generator("uring"), ended_by)
    said = traffic.hear()
    alive = reader.rows(netns=namespace.inode)
    traffic.end()
    rows = reader.until_closed(2, netns=namespace.inode)

    # No file of any process refers to them, so no pass can see them: docs/accuracy.md.
    assert alive == []
    assert flow(rows) == [said["sent"], 0, 0, said["sent"]]
    assert (rows.values("pid"), rows.values("process"), rows.values("exe")) == ({traffic.pid}, {"uring"}, {"uring"})
    assert rows.total("accepts") == 1
    assert_totals_are_the_kernels(rows, namespace.totals())
