"""The command line: runs a command, and turns errors into a line on stderr and an exit code."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import threading
from collections.abc import Sequence

from watchdog import __version__
from watchdog.cli.argument_parser import ArgumentParser
from watchdog.errors import TEMPORARY_ERRNOS, TemporaryFailure, UsageError, WatchdogError

# Modules with `register` and `run`, by command. A module is imported only for its own command, or for the help.
_COMMANDS = {
    "run": "watchdog.cli.run",
    "sample": "watchdog.cli.sample",
    "check": "watchdog.cli.check",
    "status": "watchdog.cli.status",
    "alerts": "watchdog.cli.alerts",
    "rules": "watchdog.cli.rules",
    "explain": "watchdog.cli.explain",
    "baseline": "watchdog.cli.baseline",
    "reload": "watchdog.cli.reload",
    "notify": "watchdog.cli.notify",
    "notifications": "watchdog.cli.notifications",
    "silence": "watchdog.cli.silence",
    "ack": "watchdog.cli.ack",
    "metrics": "watchdog.cli.metrics",
    "export": "watchdog.cli.export",
    "doctor": "watchdog.cli.doctor",
    "selftest": "watchdog.cli.selftest",
}
_INTERRUPTED = 130  # as in shells: 128 plus the number of SIGINT
_EPILOG = """\
start here:
  bpf-watchdog doctor              check the requirements on this host
  bpf-watchdog sample              show the connections of the next 5 seconds
  bpf-watchdog run                 monitor this host, notify on this terminal
  bpf-watchdog check FILE          check a rule file

exit codes: 0 ok, 1 problem found, 2 usage, 3 daemon not reachable, 4 not
permitted or kernel unfit, 75 memory, disk space or processes are used up"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(given)
    except WatchdogError as error:
        print(f"bpf-watchdog: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe has closed it
        _discard_output()
        return 0
    except MemoryError:
        print("bpf-watchdog: no memory", file=sys.stderr)
        return TemporaryFailure.exit_code
    except OSError as error:
        if error.errno not in TEMPORARY_ERRNOS:
            raise
        return _report_shortage(error)
    except RuntimeError:
        if _can_start_thread():
            raise
        limits = "pids.max of the control group, RLIMIT_NPROC, kernel.threads-max"
        print(f"bpf-watchdog: no further thread or process is allowed: see {limits}", file=sys.stderr)
        return TemporaryFailure.exit_code


def _can_start_thread() -> bool:
    # Python raises a plain RuntimeError where it cannot.
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True


def _report_shortage(error: OSError) -> int:
    """Report that a resource is used up; return the exit code."""
    if error.errno == errno.ENOSPC and error.filename is None:  # errors of files have a name
        _discard_output()
        print(f"bpf-watchdog: cannot write to standard output: {error.strerror}", file=sys.stderr)
        return WatchdogError.exit_code
    place = "" if error.filename is None else f": {error.filename}"
    print(f"bpf-watchdog: {error.strerror}{place}", file=sys.stderr)
    return TemporaryFailure.exit_code


def _run(given: Sequence[str]) -> int:
    if not given:
        print(f"usage: bpf-watchdog COMMAND …; --help lists all commands\n\n{_EPILOG}", file=sys.stderr)
        return UsageError.exit_code
    parser = ArgumentParser(
        prog="bpf-watchdog",
        description="Monitor every TCP connection of this host in the kernel, evaluate rules, notify people on call.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"bpf-watchdog {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    wanted = next((word for word in given if not word.startswith("-")), None)
    for name, module in _COMMANDS.items():
        if wanted not in _COMMANDS or name == wanted:
            importlib.import_module(module).register(commands)
    try:
        args = parser.parse_args(given)
        return int(args.run(args))
    finally:
        sys.stdout.flush()  # here, because `main` handles its errors


def _discard_output() -> None:
    # The rest of the buffer would raise again when the interpreter exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
