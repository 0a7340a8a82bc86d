"""Calls of kernel functions, linked into programs before the load."""

from __future__ import annotations

import pytest

from watchdog.kernel import kfuncs as module
from watchdog.kernel.kfuncs import Kfuncs

HELPER = bytes.fromhex("8500000001000000")  # call bpf_map_lookup_elem
DISABLE = bytes.fromhex("850000000100ff7f")
LOADED = bytes.fromhex("180000000100ff7f 0000000000000000".replace(" ", ""))  # the number as a value, not as a call
EXIT = bytes.fromhex("9500000000000000")


@pytest.fixture
def kernel(monkeypatch):
    """Return a function that simulates a kernel with a release, a version and functions."""

    def make(release, version="#1 SMP PREEMPT_DYNAMIC", **functions):
        monkeypatch.setattr(module, "Btf", type("Btf", (), {"function_id": lambda _, name: functions.get(name, 0)}))
        monkeypatch.setattr(module.os, "uname", lambda: type("Uname", (), {"release": release, "version": version}))
        return Kfuncs()

    return make


def test_a_call_of_our_number_becomes_a_call_of_the_function_and_nothing_else_changes(kernel):
    kfuncs = kernel("7.3.4+deb13-amd64", bpf_preempt_disable=0x1234, bpf_preempt_enable=0x1235)
    assert kfuncs.link_calls(HELPER + DISABLE + LOADED + EXIT) == (
        HELPER + bytes.fromhex("8520000034120000") + LOADED + EXIT
    )
    assert kfuncs.cflags == ["-DKFUNC_PREEMPT_DISABLE=0x7fff0001", "-DKFUNC_PREEMPT_ENABLE=0x7fff0002"]


@pytest.mark.parametrize(
    ("release", "functions"),
    [
        ("6.12.118+deb13-amd64", {"bpf_preempt_disable": 7, "bpf_preempt_enable": 8}),  # no preemption there
        ("7.0.0", {"bpf_preempt_disable": 7}),
        ("7.0.0", {"version": "#1 SMP PREEMPT_RT", "bpf_preempt_disable": 7, "bpf_preempt_enable": 8}),
    ],
)
def test_without_need_or_without_the_functions_nothing_is_defined_or_linked(kernel, release, functions):
    kfuncs = kernel(release, **functions)
    assert kfuncs.cflags == []
    assert kfuncs.link_calls(DISABLE) == DISABLE


def test_the_variant_of_a_program_replaces_our_value_and_nothing_else():
    code = bytes.fromhex("b70100000300ff7f") + LOADED + bytes.fromhex("bf01000000000000b702000003000000") + EXIT
    of_first = bytes.fromhex("b701000000000000") + code[8:]
    assert module.set_variant(code, 0) == of_first
    assert module.set_variant(code, 1) == of_first[:4] + b"\1" + of_first[5:]
