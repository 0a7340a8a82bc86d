"""The command line: runs a command, and turns errors into a line on stderr and an exit code."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import threading
from collections.abc import Sequence

from watchdog.cli.commands import COMMANDS, USAGE, overview_parser, parser_of
from watchdog.cli.standard_streams import prepare_standard_streams
from watchdog.errors import TEMPORARY_ERRNOS, ConfigError, TemporaryFailure, UsageError, WatchdogError
from watchdog.sanitize import for_log, for_log_lines

_INTERRUPTED = 130  # as in shells: 128 plus the number of SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    prepare_standard_streams()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(given)
    except WatchdogError as error:
        print(f"bpf-watchdog: {_error_text(error)}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        return _report_missing_module(error)
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


def _error_text(error: WatchdogError) -> str:
    """Return the text of an error, with names of files escaped; each of several problems in files has its own line."""
    if not isinstance(error, ConfigError):
        return for_log_lines(str(error))
    count = len(error.problems)
    problems = "\n".join(for_log(str(problem)) for problem in error.problems)
    return problems if count == 1 else f"{count} problems:\n{problems}"


def _can_start_thread() -> bool:
    # Python raises a plain RuntimeError where it cannot.
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True


def _report_missing_module(error: ImportError) -> int:
    """Report that a module of another project is missing; return the exit code."""
    from watchdog.kernel.python_modules import missing_module

    missing = missing_module(error)
    if missing is None:
        raise error
    print(f"bpf-watchdog: {missing}", file=sys.stderr)
    return missing.exit_code


def _report_shortage(error: OSError) -> int:
    """Report that a resource is used up; return the exit code."""
    if error.errno == errno.ENOSPC and error.filename is None:  # errors of files have a name
        _discard_output()
        print(f"bpf-watchdog: cannot write to standard output: {error.strerror}", file=sys.stderr)
        return WatchdogError.exit_code
    place = "" if error.filename is None else f": {error.filename}"
    print(for_log(f"bpf-watchdog: {error.strerror}{place}"), file=sys.stderr)
    return TemporaryFailure.exit_code


def _run(given: Sequence[str]) -> int:
    if not given:
        print(USAGE, file=sys.stderr)
        return UsageError.exit_code
    try:
        args = _parse(given)
        return int(args.run(args))
    finally:
        sys.stdout.flush()  # here, because `main` handles its errors


def _parse(given: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line; exits after help, the version and wrong usage."""
    command = given[0]
    if command not in COMMANDS:
        overview_parser().parse_args([command])  # exits: help, version, or wrong usage
    return parser_of(command).parse_args(given)


def _discard_output() -> None:
    # The rest of the buffer would raise again when the interpreter exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
