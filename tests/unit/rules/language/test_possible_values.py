import pytest

from watchdog.errors import ConfigError
from watchdog.measure.catalogue import DIMENSIONS, METRICS
from watchdog.rules.language.load import load_rules

LIVE = "ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING"
WITH_DATA = "ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING"
TIME_WAIT, NEW_SYN_RECV = (
    "; TIME_WAIT has a metric of its own: time_wait",
    "; NEW_SYN_RECV has a metric of its own: half_open",
)
STAT = {"counter": "sum", "gauge": "last", "distribution": "p99"}


@pytest.fixture
def load(tmp_path):
    def load(metric, where="{ }", by="[]", only_if=""):
        stat = STAT[METRICS[metric.split(" ")[0]].kind]
        gate = f'only_if = "{only_if}"\n' if only_if else ""
        path = tmp_path / "rules.toml"
        path.write_text(
            f'[[rule]]\nid = "r"\nsummary = "s"\nmetric = "{metric}"\nstat = "{stat}"\nwindow = "10s"\n'
            f"fire_above = 0.5\nby = {by}\nwhere = {where}\n{gate}"
        )
        return load_rules([path], receivers=None)

    return load


def messages(load, *args, **keys):
    with pytest.raises(ConfigError) as caught:
        load(*args, **keys)
    return [problem.message for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("metric", "condition", "message"),
    [
        ("open", 'state = "TIME_WAIT"', f'open never has state "TIME_WAIT": possible are {LIVE}{TIME_WAIT}'),
        ("open", 'state = "NEW_SYN_RECV"', f'open never has state "NEW_SYN_RECV": possible are {LIVE}{NEW_SYN_RECV}'),
        ("open", 'state = ["CLOSE_WAIT", "CLOSE"]', f'open never has state "CLOSE": possible are {LIVE}'),
        ("open", 'state = "LISTEN"', f'open never has state "LISTEN": possible are {LIVE}'),
        ("open", 'state = "LIS*"', f'open never has state "LIS*": possible are {LIVE}'),
        ("open", 'state = ""', f'open never has state "": possible are {LIVE}'),
        ("open", 'failure = "timeout"', 'open never has failure "timeout": possible are ""'),
        ("send_queue", 'state = "SYN_SENT"', f'send_queue never has state "SYN_SENT": possible are {WITH_DATA}'),
        ("accept_queue", 'state = "ESTABLISHED"', 'accept_queue never has state "ESTABLISHED": possible are LISTEN'),
        ("listen_drops", 'direction = "out"', 'listen_drops never has direction "out": possible are in'),
        ("closes", 'state = "ESTABLISHED"', 'closes never has state "ESTABLISHED": possible are CLOSE'),
        ("lifetime", 'state = "LAST_ACK"', 'lifetime never has state "LAST_ACK": possible are CLOSE'),
        ("connects", 'direction = "in"', 'connects never has direction "in": possible are out'),
        ("accepts", 'direction = "out"', 'accepts never has direction "out": possible are in'),
        ("connect_failures", 'direction = "in"', 'connect_failures never has direction "in": possible are out'),
        ("connect_latency", 'direction = "in"', 'connect_latency never has direction "in": possible are out'),
        ("bytes_sent", 'direction = "unknown"', 'bytes_sent never has direction "unknown": possible are out, in'),
        (
            "connect_failures",
            'failure = ""',
            (
                'connect_failures never has failure "": possible are refused, timeout, unreachable, reset, aborted,'
                " no_route, denied, no_port, other"
            ),
        ),
        ("connects", 'direction = "!out"', "excludes every direction that connects can have: out"),
        ("closes", 'state = ["*", "!CL*"]', "excludes every state that closes can have: CLOSE"),
    ],
)
def test_a_condition_that_no_connection_of_the_metric_meets_is_refused(load, metric, condition, message):
    assert messages(load, metric, f"{{ {condition} }}") == [message]


@pytest.mark.parametrize(
    ("metric", "where", "names"),
    [
        ("closes", '{ direction = "in", failure = "refused" }', "direction and failure"),
        ("open", '{ state = "SYN_SENT", direction = "in" }', "state and direction"),
        ("bytes_sent", '{ state = "ESTABLISHED", failure = "reset" }', "state and failure"),
        ("bytes_sent", '{ state = "!CLOSE", failure = "!" }', "state and failure"),
    ],
)
def test_conditions_that_are_possible_only_one_by_one_are_refused(load, metric, where, names):
    assert messages(load, metric, where) == [f"{metric} never has this {names} together"]


def test_every_metric_of_the_rule_must_be_able_to_meet_the_condition(load):
    inbound = '{ direction = "in" }'
    assert messages(load, "accepts / connects", inbound) == ['connects never has direction "in": possible are out']
    assert messages(load, "accepts", inbound, only_if="connects >= 5") == [
        'connects never has direction "in": possible are out'
    ]


@pytest.mark.parametrize(
    ("metric", "where"),
    [
        ("open", '{ state = ["SYN_*", "!TIME_WAIT"] }'),
        ("open", '{ state = "*_WAIT*" }'),
        ("open", '{ state = "CLOSE*" }'),
        ("open", '{ state = "SYN_SENT", direction = "out" }'),
        ("closes", '{ direction = "in", failure = "reset" }'),
        ("closes", '{ failure = ["refused", "timeout"], direction = "*" }'),
        ("connect_failures / closes", '{ direction = "out", failure = "timeout" }'),
        ("accept_queue", '{ direction = "in", state = "LISTEN" }'),
        ("bytes_sent", '{ state = "CLOSE", failure = "!" }'),
    ],
)
def test_a_condition_that_some_connection_meets_is_accepted(load, metric, where):
    load(metric, where)


def test_a_dimension_with_one_possible_value_is_noted_in_by(load):
    assert [note.message for note in load("connects", by='["process", "direction"]').notes] == [
        '"direction" has one value only here, "out"'
    ]
    assert not load("accepts / connects", by='["process", "direction"]').notes
    assert not load("open", by='["process", "state", "direction"]').notes


def test_possible_values_are_values_of_the_dimension():
    for metric in METRICS.values():
        for name in ("direction", "state", "failure"):
            assert set(metric.possible_values(name)) <= set(DIMENSIONS[name].choices)
        assert metric.possible_values("process") is None
