"""Features of a kernel come from its own BTF; errors name the missing feature."""

import pytest

from watchdog.errors import KernelUnfit
from watchdog.kernel.btf import Btf


def test_an_error_names_the_missing_helper():
    Btf().require_helper("sock_from_file")
    with pytest.raises(KernelUnfit, match=r"no BPF helper bpf_sock_from_space: Linux 5\.12 or newer is needed"):
        Btf().require_helper("sock_from_space")
