"""Routes: the receivers of an alert and the timing of notifications; notes on unreachable and overlapping routes."""

import tomllib
from collections import Counter
from dataclasses import replace

import pytest

import factories
from watchdog.alerts.alert import AlertIdentity, AlertState, Transition, TransitionKind
from watchdog.alerts.boottimes import Boottimes
from watchdog.clock import Now
from watchdog.config.document import Document
from watchdog.config.settings import GroupTiming, read_settings
from watchdog.errors import ConfigError
from watchdog.measure.catalogue import DimensionKind
from watchdog.routing import route_checks
from watchdog.routing.grouping import Grouping
from watchdog.routing.jitter import hash_to_share
from watchdog.routing.label_matching import matches_condition
from watchdog.routing.route_checks import check_routes
from watchdog.routing.routes import Router, read_routes
from watchdog.rules.language.load import read_rules
from watchdog.rules.language.parse_rule import RuleEnvironment
from watchdog.rules.language.rule import Condition, Severity

SECOND_NS = 1_000_000_000
WALL = 1_700_000_000.0
WARNING, CRITICAL = Severity.WARNING, Severity.CRITICAL
RECEIVERS = "".join(f'[[receiver]]\nname = "{name}"\ntype = "x"\n' for name in ("oncall", "dba", "log"))  # 9 lines


def read(routes, routing='default = ["log"]'):
    text = f"{RECEIVERS}{routes}\n[routing]\n{routing}\n"
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    config = read_settings(document)
    found = read_routes(config)
    document.raise_problems()
    return config.values.routing, found


def problems_of(routes):
    with pytest.raises(ConfigError) as caught:
        read(routes)
    return [f"{problem.line}: {problem.key}: {problem.message}" for problem in caught.value.problems]


def make_alert(rule="storm", severity=WARNING, receivers=None, fired=WALL, **labels):
    labels = tuple((labels or {"process": "nginx"}).items())
    return factories.make_alert(
        rule=rule,
        labels=labels,
        severity=severity,
        receivers=receivers,
        started=fired,
        fired=fired,
        boottimes=Boottimes(round((fired - WALL) * SECOND_NS), round((fired - WALL) * SECOND_NS)),
        reason="value above 100",
    )


def receivers_of(alert, routes):
    return [destination.receiver for destination in Router(*read(routes)).destinations(alert)]


# ------------------------------------------------------------------------------------------------ matching


TWO = """\
[[route]]
where = { severity = "critical", rule = ["*storm", "!udp-*"] }
receivers = ["oncall", "log"]
[[route]]
where = { unit = "postgres*" }
receivers = ["dba"]
"""


@pytest.mark.parametrize(
    ("alert", "receivers"),
    [
        (make_alert(severity=CRITICAL), ["oncall", "log"]),
        (make_alert(severity=CRITICAL, unit="postgresql.service"), ["oncall", "log"]),
        (make_alert(unit="postgresql.service"), ["dba"]),
        (make_alert("udp-storm", CRITICAL), ["log"]),
        (make_alert(), ["log"]),
        (make_alert(severity=CRITICAL, receivers=("dba",)), ["dba"]),
    ],
    ids=["first", "first of two", "second", "excluded", "none", "the rule's own"],
)
def test_the_first_route_that_matches_decides_unless_the_rule_names_receivers(alert, receivers):
    assert receivers_of(alert, TWO) == receivers


def test_after_a_route_that_continues_later_routes_match_too_and_no_receiver_is_notified_twice():
    routes = TWO.replace('receivers = ["oncall", "log"]', 'receivers = ["oncall", "log"]\ncontinue = true')
    routes += '[[route]]\nreceivers = ["log", "oncall"]\ngroup_wait = "30s"\n'
    router = Router(*read(routes))
    found = router.destinations(make_alert(severity=CRITICAL))
    assert [(each.receiver, each.group_timing.group_wait_ns) for each in found] == [("oncall", 0), ("log", 0)]
    assert [each.receiver for each in router.destinations(make_alert(severity=CRITICAL, unit="postgres"))] == [
        "oncall", "log", "dba",
    ]  # fmt: skip


def test_a_wait_that_a_route_does_not_set_is_that_of_the_routing_table():
    routes = '[[route]]\nreceivers = ["oncall"]\ngroup_interval = "5m"\n'
    _, (route,) = read(routes, 'group_wait = "7s"\nrepeat_interval = "1h"')
    assert route.group_timing == GroupTiming(7 * SECOND_NS, 300 * SECOND_NS, 3_600 * SECOND_NS)


@pytest.mark.parametrize(
    ("values", "text", "any_of", "none_of", "passes"),
    [
        (DimensionKind.NAME, "nginx", ("ng*",), (), True),
        (DimensionKind.NAME, "nginx", ("ng*",), ("nginx",), False),
        (DimensionKind.NAME, "nginx", (), ("redis",), True),
        (DimensionKind.NAME, "", ("*",), (), True),
        (DimensionKind.NAME, "", ("n*",), (), False),
        (DimensionKind.NAME, "ev\udcffil", ("ev?il",), (), True),
        (DimensionKind.NUMBER, "8080", ("1024-65535",), ("8080",), False),
        (DimensionKind.NUMBER, "443", ("80", "443"), (), True),
        (DimensionKind.NUMBER, "", ("0-65535",), (), False),
        (DimensionKind.NUMBER, "", (), ("80",), True),
        (DimensionKind.ADDRESS, "10.1.2.3", ("10.0.0.0/8",), (), True),
        (DimensionKind.ADDRESS, "::ffff:10.1.2.3", ("10.0.0.0/8",), (), True),
        (DimensionKind.ADDRESS, "2001:db8::1", ("10.0.0.0/8", "2001:db8::/32"), ("2001:db8::1",), False),
        (DimensionKind.ADDRESS, "", (), ("10.0.0.0/8",), True),
        (DimensionKind.CHOICE, "critical", ("crit*",), (), True),
    ],
)
def test_label_values_match_patterns_like_the_rows_of_rules(values, text, any_of, none_of, passes):
    assert matches_condition(Condition("x", any_of, none_of), values, text) is passes


# ------------------------------------------------------------------------------------------------ problems and notes


def test_every_problem_of_a_route_is_reported_with_its_line():
    routes = """\
[[route]]
where = { severity = "severe", unite = "x" }
receivers = ["oncal",
  "log", "log"]
group_by = ["process", "proces"]
group_wait = "2h"
[[route]]
receivers = []
continu = true
"""
    assert problems_of(routes) == [
        '11: route.where.severity: unknown severity "severe": known are critical, warning',
        '11: route.where.unite: unknown dimension "unite": did you mean "unit"?',
        '12: route.receivers: unknown receiver "oncal": did you mean "oncall"?',
        '13: route.receivers: duplicate entry "log"',
        '14: route.group_by: unknown label "proces": did you mean "process"?',
        "15: route.group_wait: must be at most 1h, not 2h",
        "17: route.receivers: must name at least one receiver: its notifications would not be sent",
        '18: route.continu: unknown key "continu": did you mean "continue"?',
    ]


RULES = """\
[[rule]]
id = "storm"
summary = "x"
metric = "connects"
stat = "rate"
window = "5s"
by = ["process"]
fire_above = { warning = 100, critical = 500 }
[[rule]]
id = "spike"
summary = "x"
metric = "bytes_sent"
stat = "rate"
window = "5s"
by = ["unit"]
fire_above = { warning = 100 }
[[rule]]
id = "own"
summary = "x"
metric = "connects"
stat = "rate"
window = "5s"
fire_above = 100
receivers = ["dba"]
"""


def notes_of(routes, rules=RULES):
    parsed_rules = None
    if rules is not None:
        document = Document(rules, tomllib.loads(rules), "rules.toml")
        parsed_rules = read_rules(document, RuleEnvironment(["oncall", "dba", "log"], SECOND_NS, {}))
        document.raise_problems()
    return [f"{note.line}: {note.message}" for note in check_routes(read(routes)[1], parsed_rules)]


def route(where, more="", receivers='["oncall"]'):
    return f"[[route]]\nwhere = {{ {where} }}\nreceivers = {receivers}\n{more}\n"  # 4 lines


def test_each_rule_is_compared_with_each_route_once(monkeypatch):
    count = 0

    def matches(*arguments):
        nonlocal count
        count += 1
        return matches_condition(*arguments)

    monkeypatch.setattr(route_checks, "matches_condition", matches)
    rule = '[[rule]]\nid = "r{}"\nsummary = "x"\nmetric = "connects"\nstat = "rate"\nwindow = "5s"\nfire_above = 1\n'
    rules = "".join(rule.format(number) for number in range(50))
    routes = "".join(route(f'rule = "r{number}"', "continue = true" if number % 2 else "") for number in range(40))
    assert notes_of(routes, rules) == []
    assert count == 40 * 50


NONE = "no alert can reach this route: it matches no rule"
OWN = "no alert can reach this route: its rules name their own receivers, or have no such severity"
FIRST = "no alert can reach this route: the route at line 10 takes all its alerts first"


@pytest.mark.parametrize(
    ("routes", "notes"),
    [
        (route('rule = "st*"') + route('rule = "storm"'), [f"14: {FIRST}"]),
        (route('severity = "warning"') + route('rule = "spike"'), [f"14: {FIRST}"]),
        (route('severity = "warning"') + route('rule = "storm"'), []),
        (route('process = "ng*"') + route('process = ["nginx", "nghttpd"], rule = "storm"'), [f"14: {FIRST}"]),
        (route('process = "ng*"') + route('process = "*"'), []),
        (route('process = "ng*"', "continue = true") + route('process = "nginx"'), []),
        (route('rule = "strom"'), [f"10: {NONE}"]),
        (route('unit = "nginx*", rule = "storm"'), [f"10: {NONE}"]),
        (route('rule = "own"'), [f"10: {OWN}"]),
        (route('rule = "spike", severity = "critical"'), [f"10: {OWN}"]),
        (
            route('severity = "warning"') + route('severity = "critical"') + route('rule = "*"'),
            ["18: no alert can reach this route: the routes at lines 10 and 14 take all its alerts first"],
        ),
        (
            route('rule = "storm"', "continue = true") + route('severity = "critical"', 'group_wait = "9s"'),
            ["14: an alert that matches the route at line 10 too has its waits and group_by for oncall"],
        ),
    ],
)
def test_unreachable_and_overlapping_routes_are_reported(routes, notes):
    assert notes_of(routes) == notes


def test_without_rules_only_certain_notes_are_reported():
    assert notes_of(route('rule = "strom"'), None) == []
    assert notes_of(route('severity = "critical"') + route('severity = "critical", process = "x"'), None) == [
        f"14: {FIRST}"
    ]


# ------------------------------------------------------------------------------------------------ changes over time


class Host:
    """A grouping with routes, and the alerts that fire."""

    def __init__(self, routes, jitter_share=0.0, routing='default = ["log"]'):
        self.routing, self.routes = read(routes, routing)
        self.grouping = Grouping(self.routing, "db1", self.routes, jitter_share)
        self.seconds, self.firing, self.transitions = 0.0, {}, []

    @property
    def now(self):
        return Now(round(self.seconds * SECOND_NS), WALL + self.seconds)

    def fire(self, alert):
        self.firing[alert.fingerprint] = alert
        self.transitions.append(Transition(TransitionKind.FIRING, alert))

    def set_severity(self, alert, severity):
        kind = TransitionKind.SEVERITY_RAISED if severity > alert.severity else TransitionKind.SEVERITY_LOWERED
        self.firing[alert.fingerprint] = replace(alert, severity=severity)
        self.transitions.append(Transition(kind, self.firing[alert.fingerprint]))

    def resolve(self, alert):
        alert = self.firing.pop(alert.fingerprint)
        over = replace(alert, state=AlertState.RESOLVED, resolved=WALL + self.seconds, reason="over")
        self.transitions.append(Transition(TransitionKind.RESOLVED, over))

    def tick(self, after=0.0):
        self.seconds += after
        transitions, self.transitions = self.transitions, []
        return self.grouping.advance(transitions, self.firing, self.now)

    def restore(self):
        self.grouping.restore([], self.firing, ("oncall", "dba", "log"), self.now, boottime_shift_ns=0)

    def tick_contents(self, after=0.0):
        return sorted(
            (n.receiver, n.group_key, n.reason, [(a.severity.label, a.state.value) for a in n.alerts])
            for n in self.tick(after)
        )


BY_SEVERITY = '[[route]]\nwhere = { severity = "critical" }\nreceivers = ["oncall"]\n'


def test_an_alert_that_rises_fires_for_receivers_of_critical_and_is_resolved_for_the_others():
    host, alert = Host(BY_SEVERITY), make_alert()
    host.fire(alert)
    host.tick()
    host.set_severity(alert, CRITICAL)
    assert host.tick_contents(5) == [("oncall", "storm", "first notification", [("critical", "firing")])]
    (ended,) = host.tick(55)
    assert (ended.receiver, ended.reason) == ("log", "resolved")
    assert ended.alerts[0].reason == "critical now, no longer routed to this receiver"
    host.resolve(alert)
    assert host.tick_contents(5) == [("oncall", "storm", "resolved", [("critical", "resolved")])]
    assert host.tick_contents(3_600) == []


def test_a_receiver_of_both_severities_gets_the_change_once():
    host, alert = Host(BY_SEVERITY.replace('["oncall"]', '["oncall", "log"]')), make_alert()
    host.fire(alert)
    host.tick()
    host.set_severity(alert, CRITICAL)
    assert host.tick_contents(5) == [
        ("log", "storm", "severity changed", [("critical", "firing")]),
        ("oncall", "storm", "first notification", [("critical", "firing")]),
    ]
    assert host.tick_contents(60) == []


def test_an_alert_routed_back_before_its_resolved_notification_makes_none():
    host, alert = Host(BY_SEVERITY), make_alert()
    host.fire(alert)
    host.tick()
    host.set_severity(alert, CRITICAL)
    host.tick(5)
    host.set_severity(host.firing[alert.fingerprint], WARNING)
    assert host.tick_contents(5) == []
    assert host.tick_contents(55) == [("oncall", "storm", "resolved", [("critical", "resolved")])]


def test_a_second_end_is_not_sent_when_the_alert_was_routed_back_too_briefly_for_a_notification():
    host, alert = Host(BY_SEVERITY), make_alert()
    host.fire(alert)
    host.tick()
    host.set_severity(alert, CRITICAL)
    host.tick(5)
    assert [notification.receiver for notification in host.tick(60)] == ["log"]
    host.set_severity(host.firing[alert.fingerprint], WARNING)
    host.resolve(alert)
    assert host.tick_contents(1) == [("oncall", "storm", "resolved", [("critical", "resolved")])]
    assert [host.tick_contents(60) for _ in range(10)] == [[]] * 10
    assert all(document is None for _, document in host.grouping.take_changes())


def test_an_alert_that_changes_its_group_keeps_its_notified_severity():
    grouped = BY_SEVERITY.replace("oncall", "log") + 'group_by = ["process"]\n'
    host, alert = Host(grouped), make_alert()
    host.fire(alert)
    host.tick()
    host.set_severity(alert, CRITICAL)
    assert host.tick_contents(1) == [("log", '{process="nginx"}', "severity changed", [("critical", "firing")])]
    host.resolve(alert)
    assert host.tick_contents(60) == [("log", '{process="nginx"}', "resolved", [("critical", "resolved")])]
    assert host.tick_contents(3_600) == []


def test_routes_read_labels_of_the_user_and_the_host():
    text = (
        '[[route]]\nwhere = { team = "storage", host = "web-*" }\nreceivers = ["dba"]\n'
        '[[route]]\nreceivers = ["oncall"]\ngroup_by = ["env"]\n'
    )
    host = Host(text)
    for process, identity in (
        ("a", AlertIdentity("web-1", (("env", "prod"), ("team", "storage")))),
        ("b", AlertIdentity("db-1", (("env", "prod"), ("team", "storage")))),
        ("c", AlertIdentity("web-1", (("env", "prod"), ("team", "network")))),
    ):
        host.fire(replace(make_alert(process=process), identity=identity))
    found = {
        (one.receiver, one.group_key): sorted(dict(a.labels)["process"] for a in one.alerts) for one in host.tick()
    }
    assert found == {("dba", "storm"): ["a"], ("oncall", '{env="prod"}'): ["b", "c"]}


def test_a_misspelled_name_in_a_route_is_no_label():
    assert problems_of('[[route]]\nwhere = { proces = "x" }\nreceivers = ["oncall"]\n') == [
        '11: route.where.proces: unknown dimension "proces": did you mean "process"?'
    ]


def test_a_route_reads_only_labels_that_settings_or_rules_have():
    text = '[labels]\nenv = "prod"\n[[route]]\nwhere = { env = "prod", colour = "red" }\nreceivers = ["console"]\n'
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    read_routes(read_settings(document), [factories.make_rule(labels=(("team", "dba"),))])
    assert [(one.line, one.key) for one in document.problems] == [(4, "route.where.colour")]


def test_a_route_groups_by_its_group_by():
    host = Host('[[route]]\nreceivers = ["oncall"]\ngroup_by = ["unit"]\n')
    for rule, unit in (("storm", "a"), ("spike", "a"), ("storm", "b\udcff")):
        host.fire(make_alert(rule, unit=unit))
    host.fire(make_alert("rtt"))
    found = {notification.group_key: notification for notification in host.tick()}
    assert {group: sorted(alert.rule for alert in notification.alerts) for group, notification in found.items()} == {
        '{unit="a"}': ["spike", "storm"],
        '{unit="b\\udcff"}': ["storm"],
        '{unit=""}': ["rtt"],
    }
    assert found['{unit="a"}'].group_labels == (("unit", "a"),)


def test_of_several_routes_in_one_group_the_shortest_wait_of_unsent_alerts_holds():
    slow = '[[route]]\nwhere = { severity = "warning" }\nreceivers = ["oncall"]\ngroup_wait = "5m"\n'
    host = Host(slow + '[[route]]\nreceivers = ["oncall"]\ngroup_interval = "10s"\n')
    host.fire(make_alert(process="a"))
    assert host.tick_contents() == []
    host.fire(make_alert(severity=CRITICAL, process="b"))
    assert host.tick_contents(1) == [
        ("oncall", "storm", "first notification", [("critical", "firing"), ("warning", "firing")])
    ]
    host.fire(make_alert(process="c"))
    assert host.tick_contents(59) == []
    assert [notification.reason for notification in host.tick(1)] == ["new alert in group"]


# ------------------------------------------------------------------------------------------------ jitter and flapping

JITTER = 'default = ["log"]\njitter = "10s"'


def delays(share, severity=WARNING, after=1.0, held=0.0):
    """Return the delay of the notification of an alert that becomes true `after` seconds after the start."""
    host = Host("", share, JITTER)
    host.restore()
    host.seconds = after
    alert = make_alert(severity=severity, fired=WALL + after)
    host.seconds += held
    host.fire(replace(alert, fired=WALL + host.seconds))
    for tenths in range(200):
        if host.tick(0.1 if tenths else 0):
            return tenths / 10
    raise AssertionError("never notified")


def test_hosts_that_start_together_spread_alerts_that_are_not_critical():
    assert [delays(share) for share in (0.0, 0.25, 0.999)] == [0, 2.5, 10]
    assert delays(0.999, CRITICAL) == 0


def test_only_alerts_that_became_true_soon_after_the_start_are_spread_for_any_length_of_for():
    assert delays(0.5, after=14.9, held=300) == 5
    assert delays(0.5, after=15) == 0


def test_a_reload_spreads_again_and_delays_no_older_alert():
    host = Host("", 0.5, JITTER)
    host.restore()
    host.seconds = 100
    host.fire(make_alert(process="a", fired=WALL + 100))
    assert len(host.tick()) == 1
    host.fire(make_alert(process="b", fired=WALL + 100.5))
    host.tick(0.5)
    host.tick(0.2)
    host.restore()
    assert len(host.tick(1.3)) == 1  # as soon as without the reload


def test_the_reason_of_a_flapping_alert_has_the_count():
    host = Host("")
    reasons = []
    for _ in range(200):
        alert = make_alert(fired=WALL + host.seconds)
        host.fire(alert)
        reasons += [notification.alerts[0].reason for notification in host.tick(30)]
        host.resolve(alert)
        host.tick(30)
    assert reasons[:3] == [
        "value above 100",
        "value above 100",
        "value above 100; flapping: fired 3 times within an hour",
    ]
    assert reasons[-1] == "value above 100; flapping: fired 60 times within an hour"


def test_five_hundred_hosts_do_not_notify_in_the_same_second():
    shares = [
        hash_to_share(f"web-{number}.example", "the id of the image that all were made from") for number in range(500)
    ]
    seconds = Counter(int(share * 10) for share in shares)
    assert len(seconds) == 10
    assert max(seconds.values()) < 80  # 50 on average
    assert hash_to_share("web-1", "a") == hash_to_share("web-1", "a") != hash_to_share("web-1", "b")


# ------------------------------------------------------------------------------------------------ after a restart


BY_PROCESS = '[[route]]\nreceivers = ["oncall"]\ngroup_by = ["process"]\n'


def notified_after_restart(firing, saved, notified, routes=BY_PROCESS):
    """Return the notifications after a restart with the groups `saved` and the alerts `notified`."""
    routing, found = read(routes)
    grouping = Grouping(routing, "db1", found)
    by_fingerprint = {alert.fingerprint: alert for alert in firing}
    grouping.restore(saved, by_fingerprint, ("oncall", "log"), Now(0, WALL), 0, notified)
    notifications = grouping.advance((), by_fingerprint, Now(0, WALL))
    notifications += grouping.advance((), by_fingerprint, Now(120 * SECOND_NS, WALL + 120))
    return [(each.receiver, each.group_key, [alert.state.value for alert in each.alerts]) for each in notifications]


def test_a_notified_alert_without_a_group_is_resolved_in_the_group_of_its_route():
    lasting, gone = make_alert(), make_alert(process="redis")
    notified = [("oncall", lasting), ("oncall", gone), ("log", lasting)]
    assert notified_after_restart([lasting], [], notified) == [
        ("oncall", '{process="redis"}', ["resolved"]),
        ("log", "storm", ["resolved"]),  # no longer routed to it
    ]


def test_a_resolved_notification_that_never_arrived_is_made_again_after_a_restart():
    routing, found = read('[[route]]\nwhere = { severity = "critical" }\nreceivers = ["oncall"]\n')
    grouping, worse = Grouping(routing, "db1", found), make_alert(severity=CRITICAL)
    grouping.advance([Transition(TransitionKind.FIRING, worse)], {worse.fingerprint: worse}, Now(0, WALL))
    alert = replace(worse, severity=WARNING)
    firing = {alert.fingerprint: alert}
    grouping.advance([Transition(TransitionKind.SEVERITY_LOWERED, alert)], firing, Now(SECOND_NS, WALL))
    (ended,) = (each for each in grouping.advance((), firing, Now(60 * SECOND_NS, WALL)) if each.receiver == "oncall")
    assert ended.status == "resolved"
    saved = [document for _, document in grouping.take_changes() if document is not None]
    routes = '[[route]]\nwhere = { severity = "critical" }\nreceivers = ["oncall"]\n'
    assert notified_after_restart([alert], saved, [], routes) == []
    assert notified_after_restart([alert], saved, [("oncall", worse)], routes) == [("oncall", "storm", ["resolved"])]


def test_only_alerts_notified_as_firing_here_are_refreshed():
    routing, found = read('[[route]]\nwhere = { severity = "critical" }\nreceivers = ["oncall"]\n')
    grouping, worse = Grouping(routing, "db1", found), make_alert(severity=CRITICAL)
    grouping.advance([Transition(TransitionKind.FIRING, worse)], {worse.fingerprint: worse}, Now(0, WALL))
    assert grouping.notified_alerts(["oncall", "log"]) == {"oncall": [worse], "log": []}
    assert grouping.is_routed_to("oncall", worse)
    alert = replace(worse, severity=WARNING)
    firing = {alert.fingerprint: alert}
    grouping.advance([Transition(TransitionKind.SEVERITY_LOWERED, alert)], firing, Now(SECOND_NS, WALL))
    assert grouping.notified_alerts(["oncall", "log"]) == {"oncall": [], "log": [alert]}
    assert (grouping.is_routed_to("oncall", alert), grouping.is_routed_to("log", alert)) == (False, True)
    assert not grouping.is_empty
