"""Control socket requests on baselines: `baseline show`, `accept`, `hold`, `release` and `forget`."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from watchdog.control.arguments import RequestArguments
from watchdog.control.server import Handler
from watchdog.errors import UsageError


class BaselineAction(enum.StrEnum):
    """A change of a baseline by hand; its value is the name of the command."""

    ACCEPT = "accept"
    HOLD = "hold"
    RELEASE = "release"
    FORGET = "forget"


@dataclass(frozen=True, slots=True)
class RuleBaselineStatus:
    """The baseline of one rule.

    `learnt_hours` of `learn_hours`: fewer while it learns. `groups`: number of known groups; `held`: of these, those
    whose level is never adopted.
    """

    rule: str
    is_learning: bool
    learnt_hours: int
    learn_hours: int
    groups: int
    held: int


@dataclass(frozen=True, slots=True)
class GroupBaselineStatus:
    """The baseline of one group, amounts in the metric's unit.

    `usual`: the level of this hour; `highest`: of any hour (with `fire = "below"`, the lowest); None while unknown.
    `limits`: by severity, None while there is none. `record_hours`: hours in a row above all that is usual.
    """

    labels: Mapping[str, str]
    usual: float | None
    highest: float | None
    limits: Mapping[str, float | None]
    usual_text: str
    highest_text: str
    limit_texts: Mapping[str, str]
    learnt_hours: int
    record_hours: int
    is_new: bool
    is_held: bool


@dataclass(frozen=True, slots=True)
class BaselineGroupList:
    """The groups of one rule that have rows now, those with the highest levels first; `matching`: number of them all.

    A group that was named with all its labels is found without rows too.
    """

    rule: RuleBaselineStatus
    matching: int
    groups: tuple[GroupBaselineStatus, ...]


@dataclass(frozen=True, slots=True)
class BaselineChange:
    """A change that was made; `groups`: number of changed groups."""

    action: str
    rule: str
    labels: Mapping[str, str]
    groups: int


class BaselineCommands(Protocol):
    """Reads and changes the baselines of the running daemon."""

    def list_rules(self) -> tuple[RuleBaselineStatus, ...]:
        """Return the baseline of each rule that has one."""
        ...

    def list_groups(self, rule_id: str, labels: Mapping[str, str]) -> BaselineGroupList:
        """Return the groups of a rule, or those with `labels`."""
        ...

    def change(self, action: BaselineAction, rule_id: str, labels: Mapping[str, str]) -> BaselineChange:
        """Change one group, or all of a rule without `labels`."""
        ...


def baseline_handlers(commands: BaselineCommands) -> dict[str, Handler]:
    """Return the handlers of requests on baselines, by the request's name."""

    def show(given: Mapping[str, Any]) -> dict[str, Any]:
        arguments = RequestArguments(given)
        rule, labels = arguments.text("rule"), arguments.text_table("labels")
        arguments.reject_unknown_arguments()
        if rule:
            return asdict(commands.list_groups(rule, labels))
        if labels:
            raise UsageError("rule is missing")
        return {"rules": [asdict(one) for one in commands.list_rules()]}

    changes = {
        f"baseline {action}": Handler(_changer(commands, action), changes=True, in_background=True)
        for action in BaselineAction
    }
    return {"baseline show": Handler(show, in_background=True), **changes}


def _changer(commands: BaselineCommands, action: BaselineAction) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def change(given: Mapping[str, Any]) -> dict[str, Any]:
        arguments = RequestArguments(given)
        rule, labels = arguments.text("rule"), arguments.text_table("labels")
        arguments.reject_unknown_arguments()
        if not rule:
            raise UsageError("rule is missing")
        return asdict(commands.change(action, rule, labels))

    return change
