"""Codes of names and addresses: stable while in use, bounded in number, never reused."""

from __future__ import annotations

import numpy as np
import pytest

from watchdog.measure.catalogue import OTHER_CODE, UNKNOWN_CODE
from watchdog.measure.interning import OTHER_NAME, InternedNames

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
ROOT, FLOODER, OTHER_USER = 0, 1000, 1001


def accounts(addresses, account=1000):
    return np.full(len(addresses), account, np.uint32)


def intern(names, dimension, addresses, at_ns, account=1000):
    return names.intern_addresses(dimension, addresses, accounts(addresses, account), at_ns)


def halves(*numbers):
    return np.array([(0, (0xFFFF << 32) + number) for number in numbers], np.uint64)


@pytest.fixture
def names():
    return InternedNames()


def test_a_name_has_one_code_and_the_code_one_name(names):
    code = names.intern("process", "curl", ROOT, SECOND)
    assert names.intern("process", "curl", ROOT, 2 * SECOND) == code != names.intern("process", "wget", ROOT, SECOND)
    assert names.text("process", code) == "curl"
    assert names.find_code("process", "curl") == code
    assert names.find_code("process", "none") is None
    assert names.text("process", names.intern("process", "", ROOT, SECOND)) == ""


def test_by_default_a_name_is_retained_for_two_maximum_windows(names):
    code = names.intern("process", "backup", ROOT, 10 * HOUR)
    names.forget_unused(12 * HOUR)
    assert names.intern("process", "backup", ROOT, 12 * HOUR) == code
    names.forget_unused(14 * HOUR + 61 * SECOND)
    assert names.find_code("process", "backup") is None


def test_names_outside_every_window_are_forgotten_and_their_codes_never_reused(names):
    names.set_retention(10 * SECOND)
    code = names.intern("process", "a", ROOT, HOUR)
    kept = names.intern("process", "b", ROOT, HOUR)
    names.mark_used("process", [kept], HOUR + 60 * SECOND)
    names.forget_unused(HOUR + 71 * SECOND)
    assert names.text("process", code) == OTHER_NAME
    assert names.text("process", kept) == "b"
    assert names.intern("process", "a", ROOT, HOUR + 72 * SECOND) not in (code, kept)


def flood(names, account, first, count, at_ns):
    return [names.intern("process", f"x{number}", account, at_ns) for number in range(first, first + count)]


def test_beyond_its_share_the_new_names_of_an_account_are_unknown_until_others_are_unused():
    names = InternedNames(max_names=1000)
    names.set_retention(10 * SECOND)
    codes = flood(names, FLOODER, 0, 600, HOUR)
    assert (codes.count(UNKNOWN_CODE), len(set(codes))) == (100, 501)
    assert names.intern("process", "x5", FLOODER, HOUR) in codes
    later = HOUR + 71 * SECOND
    assert names.text("process", names.intern("process", "xmrig", FLOODER, later)) == "xmrig"


def test_a_flood_of_names_leaves_room_for_other_accounts():
    names = InternedNames(max_names=1000)
    flood(names, FLOODER, 0, 5000, HOUR)
    codes = [names.intern("process", f"job{number}", OTHER_USER, HOUR) for number in range(300)]
    assert UNKNOWN_CODE not in codes
    assert [names.text("process", code) for code in codes[:2]] == ["job0", "job1"]


def test_several_accounts_that_flood_leave_room_for_accounts_with_few_names():
    names = InternedNames(max_names=10_000)
    for account in range(FLOODER, FLOODER + 5):
        flood(names, account, account * 10_000, 10_000, HOUR)
    codes = [names.intern("process", f"job{number}", ROOT, HOUR) for number in range(100)]
    assert UNKNOWN_CODE not in codes[:64]
    assert set(codes[64:]) == {UNKNOWN_CODE}


def test_an_account_at_its_share_loses_the_names_that_it_used_least_recently():
    names = InternedNames(max_names=1000)
    kept = names.intern("process", "sshd", ROOT, HOUR)
    codes = flood(names, FLOODER, 0, 500, HOUR)
    names.mark_used("process", codes[:400], HOUR + 55 * SECOND)
    now = HOUR + 100 * SECOND  # names are retained for two hours
    code = names.intern("process", "new", FLOODER, now)
    assert names.text("process", code) == "new"
    assert [names.text("process", one) for one in (codes[0], codes[399], codes[499])] == ["x0", "x399", OTHER_NAME]
    assert names.text("process", kept) == "sshd"
    assert names.intern("process", "x499", FLOODER, now) not in codes


def test_a_full_table_is_not_searched_at_every_new_name():
    names = InternedNames(max_names=100)
    flood(names, FLOODER, 0, 51, HOUR)
    names.set_retention(-HOUR)  # all names can be forgotten
    assert names.intern("process", "y", FLOODER, HOUR + 9 * SECOND) == UNKNOWN_CODE
    assert names.intern("process", "y", FLOODER, HOUR + 10 * SECOND) != UNKNOWN_CODE


@pytest.mark.parametrize(("number", "text"), [(0x0A000001, "10.0.0.1"), (0xC0000201, "192.0.2.1")])
def test_addresses_have_codes_and_codes_have_addresses(names, number, text):
    (code,) = intern(names, "remote", halves(number), SECOND).tolist()
    assert names.text("remote", code) == text
    assert names.find_code("remote", text) == code
    assert names.find_code("local", text) is None


@pytest.mark.parametrize("text", ["", "x", "10.0.0.0/8", "300.1.1.1", "::9"])
def test_an_unseen_address_and_other_text_have_no_code(names, text):
    assert names.find_code("remote", text) is None


def test_ipv6_addresses_are_compared_by_all_bits(names):
    pairs = np.array([(1, 2), (1, 3), (2, 2), (0x20010DB8 << 32, 1)], np.uint64)
    codes = intern(names, "remote", pairs, SECOND).tolist()
    assert len(set(codes)) == 4
    assert names.text("remote", codes[3]) == "2001:db8::1"


def test_the_number_of_addresses_is_bounded_and_all_others_are_one():
    bounded = InternedNames(max_addresses=256)
    bounded.set_retention(10 * SECOND)
    codes = intern(bounded, "remote", halves(*range(300)), HOUR)
    assert (codes == OTHER_CODE).sum() == 44
    assert bounded.text("remote", OTHER_CODE) == OTHER_NAME
    assert bounded.find_code("remote", OTHER_NAME) == OTHER_CODE
    again = intern(bounded, "remote", halves(1000), HOUR + 80 * SECOND)
    assert bounded.text("remote", int(again[0])) == "0.0.3.232"


def test_a_flood_of_addresses_leaves_room_for_other_accounts():
    names = InternedNames(max_addresses=4096)
    for first in range(0, 40_000, 500):
        intern(names, "remote", halves(*range(first, first + 500)), HOUR + first * SECOND // 500, FLOODER)
    late = HOUR + 90 * SECOND
    codes = intern(names, "remote", halves(*range(90_000, 90_500)), late, OTHER_USER)
    assert OTHER_CODE not in codes
    assert names.text("remote", int(codes[0])) == "0.1.95.144"
    assert (intern(names, "remote", halves(*range(80_000, 80_100)), late, FLOODER) == OTHER_CODE).all()
    assert OTHER_CODE not in intern(names, "remote", halves(*range(500)), late, FLOODER)


def test_a_process_called_other_is_not_taken_for_the_names_without_space():
    names = InternedNames()
    code = names.intern("process", OTHER_NAME, ROOT, 1)
    assert (names.text("process", code), names.find_code("process", OTHER_NAME)) == ('"(other)"', OTHER_CODE)
    assert names.text("process", OTHER_CODE) == OTHER_NAME
