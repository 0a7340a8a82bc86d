"""Files of /proc about this process, with names that hold line ends of other kinds than the line feed."""

from __future__ import annotations

import mmap

import pytest

from watchdog.kernel import privileges, trusted_code

LINE_ENDS = ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"]


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_a_library_is_found_by_its_whole_name(tmp_path, line_end):
    library = tmp_path / f"lib{line_end}c.so"
    library.write_bytes(bytes(mmap.PAGESIZE))
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC):
        assert str(library) in set(trusted_code._single_files())


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_the_name_of_the_process_adds_no_line(tmp_path, line_end):
    status = tmp_path / "status"
    status.write_text(f"Name:\ta{line_end}NoNewPrivs:\t1\nCapEff:\t5\n", newline="")
    assert privileges._status(status).keys() == {"Name", "CapEff", ""}
