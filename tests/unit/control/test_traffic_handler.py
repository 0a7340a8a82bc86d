"""The request `traffic`: rows of the newest tick, kept only while somebody asks."""

import json

import pytest
from sample_period import Period, make_connections

from watchdog.control.alert_handlers import ActiveAlert
from watchdog.control.traffic_handler import MAX_WORST_ALERTS, Traffic, traffic_handlers
from watchdog.daemon.newest_traffic import NewestTraffic
from watchdog.errors import DocumentError, UsageError


class Ticks(Period):
    """Ticks of a host with five connections, given to the daemon's `NewestTraffic`."""

    def __init__(self, clock):
        self.newest, self.clock = NewestTraffic(clock), clock
        super().__init__(self)
        self.second = clock.boottime_ns() // 10**9

    def add(self, _, snapshot):
        self.newest.take(snapshot)

    def tick(self):
        self.clock.advance(1)
        super().tick(live=[make_connections(5, bytes_sent=self.second, local_port=range(1, 6))])


def make_alerts(count, state="firing", severity="critical"):
    return [
        ActiveAlert(str(n), f"rule-{n}", state, severity, {}, 0.0, None, 1.0, 1.0, "1", "1", 1.0, "", "", (), ())
        for n in range(count)
    ]


@pytest.fixture
def ticks(clock):
    return Ticks(clock)


@pytest.fixture
def ask(ticks):
    alerts = [*make_alerts(7), *make_alerts(2, severity="warning"), *make_alerts(3, "pending", "warning")]
    handlers = traffic_handlers(ticks.newest.read, lambda: alerts, lambda: "web-1", lambda: 1.0)
    return lambda **arguments: handlers["traffic"].handle(arguments)


def test_ticks_are_kept_from_the_first_request_until_15_s_after_the_last(ticks, ask):
    ticks.tick()
    assert ask() is None  # nobody had asked before that tick
    ticks.tick()
    assert ask()["row_count"] == 1
    for _ in range(16):
        ticks.tick()
    assert ask() is None


def test_an_answer_survives_json_and_is_not_given_twice(ticks, ask):
    ask()
    ticks.tick()
    answer = json.loads(json.dumps(ask(view="connections", limit=2), allow_nan=False))
    traffic = Traffic.from_json(answer)
    assert (traffic.host, traffic.row_count, len(traffic.rows), traffic.interval_seconds) == ("web-1", 5, 2, 1.0)
    assert (traffic.alerts.critical, traffic.alerts.warning, traffic.alerts.pending) == (7, 2, 3)
    assert [alert.rule for alert in traffic.alerts.worst] == [f"rule-{n}" for n in range(MAX_WORST_ALERTS)]
    assert ask(known_ns=traffic.at_ns) is None
    ticks.tick()
    assert ask(known_ns=traffic.at_ns)["at_ns"] > traffic.at_ns


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"view": "unit"}, "units"),
        ({"sort": "bytes_snt"}, "bytes_sent"),
        ({"limit": 1_001}, "1000"),
        ({"where": ["proces=x"]}, "process"),
        ({"where": ["pid=1"] * 51}, "50"),
        ({"sorted": "pid"}, "sort"),
    ],
)
def test_a_wrong_request_is_refused_with_the_reason(ask, arguments, reason):
    with pytest.raises(UsageError, match=reason):
        ask(**arguments)


def test_an_answer_of_another_version_is_an_error(ticks, ask):
    ask()
    ticks.tick()
    answer = ask()
    del answer["totals"]
    with pytest.raises(DocumentError):
        Traffic.from_json(answer)
