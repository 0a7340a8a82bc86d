"""Rows are copied unchanged."""

import numpy as np
import pytest

from watchdog.kernel.layout import CONNECTION
from watchdog.measure.struct_rows import concatenate_rows, extract_fields, select_rows

MANY = 2_503  # more than one block


def rows(count):
    made = np.zeros(count, CONNECTION)
    made["cookie"] = np.arange(count)
    made["remote_port"] = np.arange(count) % 65_521
    made["owner"]["comm"] = [f"p{number}" for number in range(count)]
    return made


@pytest.mark.parametrize("count", [0, 1, 1_024, MANY])
def test_extracted_fields_are_contiguous_and_complete(count):
    made = extract_fields(rows(count), ["cookie", "remote_port"])

    assert made["cookie"].tolist() == list(range(count))
    assert made["remote_port"].tolist() == list(range(count))
    assert made["remote_port"].dtype == "<u2"
    assert made["remote_port"].flags.c_contiguous


def test_rows_are_concatenated_whole_and_in_order_also_if_not_contiguous():
    apart = rows(10)[::3]
    both = concatenate_rows([rows(2), np.empty(0, CONNECTION), apart])

    assert both["cookie"].tolist() == [0, 1, 0, 3, 6, 9]
    assert both["owner"]["comm"].tolist() == [b"p0", b"p1", b"p0", b"p3", b"p6", b"p9"]
    both["cookie"] = 7
    assert apart["cookie"].tolist() == [0, 3, 6, 9]


def test_rows_are_selected_by_indices_and_by_a_mask():
    assert select_rows(rows(5), np.array([3, 3, 0]))["owner"]["comm"].tolist() == [b"p3", b"p3", b"p0"]
    assert select_rows(rows(5), np.arange(5) > 2)["cookie"].tolist() == [3, 4]
