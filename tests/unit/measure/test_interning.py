"""Codes of names and addresses: stable while in use, bounded in number, never reused."""

from __future__ import annotations

import numpy as np
import pytest

from watchdog.measure import interning as module
from watchdog.measure.catalogue import OTHER_CODE, UNKNOWN_CODE
from watchdog.measure.interning import OTHER_NAME, InternedNames

SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def halves(*numbers):
    return np.array([(0, (0xFFFF << 32) + number) for number in numbers], np.uint64)


@pytest.fixture
def names():
    return InternedNames()


def test_a_name_has_one_code_and_the_code_one_name(names):
    code = names.intern("process", "curl", SECOND)
    assert names.intern("process", "curl", 2 * SECOND) == code != names.intern("process", "wget", SECOND)
    assert names.text("process", code) == "curl"
    assert names.find_code("process", "curl") == code
    assert names.find_code("process", "none") is None
    assert names.text("process", names.intern("process", "", SECOND)) == ""


def test_by_default_a_name_is_retained_for_two_maximum_windows(names):
    code = names.intern("process", "backup", 10 * HOUR)
    names.forget_unused(12 * HOUR)
    assert names.intern("process", "backup", 12 * HOUR) == code
    names.forget_unused(14 * HOUR + 61 * SECOND)
    assert names.find_code("process", "backup") is None


def test_names_outside_every_window_are_forgotten_and_their_codes_never_reused(names):
    names.set_retention(10 * SECOND)
    code = names.intern("process", "a", HOUR)
    kept = names.intern("process", "b", HOUR)
    names.mark_used("process", [kept], HOUR + 60 * SECOND)
    names.forget_unused(HOUR + 71 * SECOND)
    assert names.text("process", code) == OTHER_NAME
    assert names.text("process", kept) == "b"
    assert names.intern("process", "a", HOUR + 72 * SECOND) not in (code, kept)


def test_beyond_the_bound_a_name_is_unknown_until_others_are_unused(names, monkeypatch):
    monkeypatch.setattr(module, "_MAX_NAMES", 100)
    names.set_retention(10 * SECOND)
    codes = {names.intern("process", f"x{number}", HOUR) for number in range(99)}
    assert len(codes) == 99
    assert UNKNOWN_CODE not in codes
    assert names.intern("process", "xmrig", HOUR) == UNKNOWN_CODE
    assert names.intern("process", "x5", HOUR) in codes
    later = HOUR + 71 * SECOND
    assert names.text("process", names.intern("process", "xmrig", later)) == "xmrig"


def test_a_full_dictionary_is_not_searched_at_every_new_name(names, monkeypatch):
    monkeypatch.setattr(module, "_MAX_NAMES", 100)
    for number in range(99):
        names.intern("process", f"x{number}", HOUR)
    names.intern("process", "y", HOUR)
    names.set_retention(-HOUR)  # all names can be forgotten
    assert names.intern("process", "y", HOUR + 9 * SECOND) == UNKNOWN_CODE
    assert names.intern("process", "y", HOUR + 10 * SECOND) != UNKNOWN_CODE


@pytest.mark.parametrize(("number", "text"), [(0x0A000001, "10.0.0.1"), (0xC0000201, "192.0.2.1")])
def test_addresses_have_codes_and_codes_have_addresses(names, number, text):
    (code,) = names.intern_addresses("remote", halves(number), SECOND).tolist()
    assert names.text("remote", code) == text
    assert names.find_code("remote", text) == code
    assert names.find_code("local", text) is None


@pytest.mark.parametrize("text", ["", "x", "10.0.0.0/8", "300.1.1.1", "::9"])
def test_an_unseen_address_and_other_text_have_no_code(names, text):
    assert names.find_code("remote", text) is None


def test_ipv6_addresses_are_compared_by_all_bits(names):
    pairs = np.array([(1, 2), (1, 3), (2, 2), (0x20010DB8 << 32, 1)], np.uint64)
    codes = names.intern_addresses("remote", pairs, SECOND).tolist()
    assert len(set(codes)) == 4
    assert names.text("remote", codes[3]) == "2001:db8::1"


def test_the_number_of_addresses_is_bounded_and_others_are_unknown(names, monkeypatch):
    monkeypatch.setattr(module, "_MAX_ADDRESSES", 256)
    bounded = InternedNames()
    bounded.set_retention(10 * SECOND)
    codes = bounded.intern_addresses("remote", halves(*range(300)), HOUR)
    assert (codes == UNKNOWN_CODE).sum() == 44
    again = bounded.intern_addresses("remote", halves(1000), HOUR + 80 * SECOND)
    assert bounded.text("remote", int(again[0])) == "0.0.3.232"


def test_a_process_called_other_is_not_taken_for_the_names_without_space():
    names = InternedNames()
    code = names.intern("process", OTHER_NAME, 1)
    assert (names.text("process", code), names.find_code("process", OTHER_NAME)) == ('"(other)"', OTHER_CODE)
    assert names.text("process", OTHER_CODE) == OTHER_NAME
