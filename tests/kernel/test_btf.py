"""What a kernel has is read from its own BTF, and what it lacks is named."""

import pytest

from watchdog.errors import KernelUnfit
from watchdog.kernel.btf import Btf


def test_a_helper_that_the_kernel_lacks_is_named():
    Btf().require_helper("sock_from_file")
    with pytest.raises(KernelUnfit, match=r"no BPF helper bpf_sock_from_space: Linux 5\.12 or newer is needed"):
        Btf().require_helper("sock_from_space")
