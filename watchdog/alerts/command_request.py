"""Command lines that evidence waits for: requested in one tick, answered in a later one."""

from __future__ import annotations

from dataclasses import dataclass

from watchdog.measure.procfs import CommandLine, UnreadReason
from watchdog.rules.language.rule import Labels


@dataclass(frozen=True, slots=True)
class CommandRequest:
    """A command line that is wanted: of the top process of one instance.

    `start_ns`: start of the process, CLOCK_BOOTTIME, None if unknown.
    """

    rule: str
    labels: Labels
    fingerprint: str
    pid: int
    start_ns: int | None


CommandAnswer = tuple[CommandRequest, CommandLine | UnreadReason | None]
"""A request and its answer: the command line, the reason why it is not known, or None: the process has ended."""
