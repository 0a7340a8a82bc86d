"""Tables for the terminal."""

from watchdog.cli.table import format_table, table_lines


class Rows:
    """Rows that are made anew each time they are read."""

    def __iter__(self):
        yield from (["a", 7, None], ["long\tname", 12345, 0.25])


def test_columns_are_as_wide_as_their_widest_cell_of_all_rows():
    assert list(table_lines(["NAME", "N", "TIME"], Rows())) == [
        "NAME              N  TIME",
        "a                 7     -",
        r"long\x09name  12345   0.2",
    ]


def test_a_table_without_rows_is_its_head():
    assert format_table(["NAME", "N"], []) == "NAME  N"
