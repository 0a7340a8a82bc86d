"""bpf-watchdog: an unattended host guard that watches every TCP connection from inside the kernel."""

__version__ = "0.1.0"
