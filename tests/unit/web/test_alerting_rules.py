"""Exported rules: read and evaluated by promtool, and the reasons of those that are refused."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from factories import make_own_health
from watchdog.clock import SECOND_NS
from watchdog.resources import shipped_rules_folder
from watchdog.rules.language.load import load_rules
from watchdog.web.alerting_rules import export_rules, to_yaml
from watchdog.web.exposition import Exposition
from watchdog.web.own_health import TickDurations
from watchdog.web.traffic_totals import COUNTERS, TrafficTotals

SCRAPE_NS = 15 * SECOND_NS
TARGET = 'instance="db1:9464", job="bpf-watchdog"'
PREFIX = "bpf_watchdog_"


@pytest.fixture
def export(tmp_path):
    """Return a function that exports the rules of a TOML text; the YAML is in rules.yml of the test's folder."""

    def export(text, scrape_ns=SCRAPE_NS):
        (tmp_path / "rules.toml").write_text(text)
        rules = load_rules([tmp_path / "rules.toml"], receivers=None).rules
        exported = export_rules(rules, scrape_ns)
        (tmp_path / "rules.yml").write_text("".join(f"{line}\n" for line in to_yaml(exported, "of a test")))
        return exported

    return export


def rule(more="", **keys):
    """Return a rule with these keys, given as TOML, over those of a rule that can be exported."""
    usual = {
        "id": '"storm"',
        "summary": '"{process} at {value} (limit {threshold})"',
        "metric": '"connects"',
        "stat": '"rate"',
        "window": '"1m"',
        "by": '["process"]',
        "fire_above": "100",
    }
    lines = [f"{key.removesuffix('_')} = {value}" for key, value in (usual | keys).items() if value]
    return "\n".join(["[[rule]]", *lines, more, ""])


@pytest.fixture
def evaluate(tmp_path):
    """Return a function that lets promtool evaluate rules.yml over series, and compare the alerts that fire.

    `series`: values by name and labels in the notation of promtool, one value each 15 s. `wanted`: by time, the labels
    of the alerts that fire, beside those of the target.
    """

    def evaluate(series, wanted):
        tests = {
            "rule_files": [str(tmp_path / "rules.yml")],
            "evaluation_interval": "15s",
            "tests": [
                {
                    "interval": "15s",
                    "input_series": [
                        {"series": series_name(name), "values": values} for name, values in series.items()
                    ],
                    "promql_expr_test": [
                        {
                            "expr": 'ALERTS{alertstate="firing"}',
                            "eval_time": time,
                            "exp_samples": [
                                {"labels": f'ALERTS{{alertstate="firing", {TARGET}, {labels}}}', "value": 1}
                                for labels in alerts
                            ],
                        }
                        for time, alerts in wanted.items()
                    ],
                }
            ],
        }
        (tmp_path / "test.yml").write_text(json.dumps(tests))
        done = subprocess.run(
            ["promtool", "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "rules.yml").read_text()

    return evaluate


def series_name(name):
    metric, _, labels = name.partition("{")
    return f"{PREFIX}{metric}{{{TARGET}{', ' if labels else '}'}{labels}"


def alert(name="storm", severity="warning", **labels):
    parts = {"alertname": name, "severity": severity} | labels
    return ", ".join(f'{key}="{value}"' for key, value in parts.items())


# ------------------------------------------------------------------------------------------------------ shipped rules

EXPORTED = {
    *("accept-queue-full", "listen-drops", "bytes-sent-spike", "bytes-sent-spike-of-host", "bytes-received-spike"),
    *("bytes-received-spike-of-host", "outbound-connection-storm", "outbound-connection-storm-of-host"),
    *("local-ports-used-up", "connect-latency", "round-trip-time", "retransmission-share"),
    *("watchdog-lost-connections", "watchdog-late-bytes", "watchdog-missed-ticks", "watchdog-failed-ticks"),
    "watchdog-long-interval",
}


@pytest.fixture(scope="module")
def shipped():
    rules = load_rules([shipped_rules_folder()], receivers=None).rules
    return rules, export_rules(rules, SCRAPE_NS)


def test_the_shipped_rules_that_promql_can_express_are_exported_and_all_others_have_a_reason(shipped):
    rules, exported = shipped
    alerts = {one.alert for group in exported.groups.values() for one in group}
    assert alerts == EXPORTED
    assert alerts | exported.refused.keys() == {one.id for one in rules}
    reasons = {name: problem.message for name, problem in exported.refused.items()}
    assert reasons["bytes-sent-spike-by-user"] == "by: bpf_watchdog_tcp_bytes_sent_total has no label user"
    assert reasons["inbound-connection-storm"] == "where: bpf_watchdog_tcp_established_total has no label direction"
    assert reasons["port-scan"] == "stat: bpf_watchdog_tcp_connects_total has no label remote_port"
    assert reasons["unusual-bytes-sent"] == "baseline: its limits are learnt by the daemon"
    assert reasons["new-listener"] == "novelty: the daemon remembers the combinations of values"


def test_promtool_accepts_the_shipped_rules(shipped, tmp_path):
    _, exported = shipped
    file = tmp_path / "shipped.yml"
    file.write_text("".join(f"{line}\n" for line in to_yaml(exported, "of a test")))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    count = sum(len(group) for group in exported.groups.values())
    assert (done.returncode, done.stderr) == (0, "")
    assert f"SUCCESS: {count} rules found" in done.stdout
    assert "# Not exported:\n#   " in file.read_text()


def test_every_series_of_the_expressions_is_served(shipped):
    totals = TrafficTotals(10)
    totals._places.find("nginx", "web.service")
    totals._counters[:, :2] = np.arange(1, 2 * len(COUNTERS) + 1).reshape(-1, 2)
    totals._failures[1] = totals._open[1] = 1
    totals._seen_states[1] = True
    for name in totals._buckets:
        totals._add_values(name, np.array([0.3]), np.array([1]))
    page = Exposition(totals, TickDurations(), make_own_health).page("").body.decode()
    served = {sample.name for family in text_string_to_metric_families(page) for sample in family.samples}
    expressions = " ".join(one.expr for group in shipped[1].groups.values() for one in group)
    assert set(re.findall(rf"\b{PREFIX}\w+", expressions)) <= served
    bounds = {sample.labels["le"] for family in text_string_to_metric_families(page) for sample in family.samples if "le" in sample.labels}  # fmt: skip  # noqa: E501
    for pattern in re.findall(r'le=~"([^"]+)"', expressions):
        assert sum(re.fullmatch(pattern, bound) is not None for bound in bounds) == 1


# ---------------------------------------------------------------------------------------------------------- semantics


def test_rates_are_added_over_units_and_hosts_are_judged_apart(export, evaluate):
    export(rule(fire_above="{ warning = 100, critical = 200 }"))
    evaluate(
        {
            'tcp_connects_total{process="a", unit="x"}': "0+900x40",  # 60/s
            'tcp_connects_total{process="a", unit="y"}': "0+900x40",
            'tcp_connects_total{process="b", unit="x"}': "0+900x40",
            'tcp_connects_total{process="(other)", unit="(other)"}': "0+90000x40",
            'tcp_connects_total{process="c", unit="x"}': "0+4500x40",
        },
        {
            "5m": [
                alert(process="a"),
                alert(process="c"),
                alert(process="c", severity="critical"),
            ]
        },
    )


def test_for_levels_to_clear_and_keep_firing_for(export, evaluate):
    export(rule(fire_above="100", clear_below="60", for_='"45s"', keep_firing_for='"1m"'))
    # 120/s for 3 minutes, 80/s for 5 minutes, 40/s from then on.
    series = {'tcp_connects_total{process="a", unit="x"}': "0+1800x12 22800+1200x20 46200+600x40"}
    fires = [alert(process="a")]
    evaluate(series, {"45s": [], "3m": fires, "7m": fires, "9m": fires, "12m": []})


def test_a_value_between_the_levels_does_not_begin_to_fire(export, evaluate):
    export(rule(fire_above="100", clear_below="60"))
    evaluate({'tcp_connects_total{process="a", unit="x"}': "0+1200x40"}, {"5m": []})


def test_sums_scale_to_a_longer_range_and_the_difference_is_a_comment(export, evaluate, tmp_path):
    exported = export(rule(stat='"sum"', window='"10s"', fire_above="500"))
    [[one]] = exported.groups.values()
    assert one.notes == ("window 1m instead of 10s: 4 scrapes, one each 15s",)
    assert f"# {one.notes[0]}\n      - alert" in (tmp_path / "rules.yml").read_text()
    evaluate(
        {
            'tcp_connects_total{process="a", unit="x"}': "0+900x40",  # 600 in 10 s
            'tcp_connects_total{process="b", unit="x"}': "0+600x40",
        },
        {"5m": [alert(process="a")]},
    )


def test_shares_conditions_and_the_gate(export, evaluate):
    export(
        rule(
            metric='"connect_failures / closes"',
            only_if='"closes >= 100"',
            where='{ failure = "*", process = ["!cron*"], unit = "*.service" }'.replace('failure = "*", ', ""),
            fire_above='"20%"',
        )
    )
    series = {}
    for process, unit, failures, closes in (
        ("a", "x.service", 30, 100),
        ("few", "x.service", 5, 10),
        ("cron1", "x.service", 30, 100),
        ("b", "x.scope", 30, 100),
        ("fine", "x.service", 1, 100),
        ("none", "x.service", 0, 0),
    ):
        labels = f'process="{process}", unit="{unit}"'
        series[f'tcp_connect_failures_total{{{labels}, failure="refused"}}'] = f"0+{failures // 2}x40"
        series[f'tcp_connect_failures_total{{{labels}, failure="timeout"}}'] = f"0+{failures - failures // 2}x40"
        series[f"tcp_closes_total{{{labels}}}"] = f"0+{closes}x40"
    evaluate(series, {"5m": [alert(process="a")]})


def test_a_divisor_of_0_counts_as_1_and_a_missing_series_as_0(export, evaluate):
    export(rule(metric='"(bytes_sent + udp_bytes_sent) / connects"', fire_above="50"))
    evaluate(
        {
            'tcp_bytes_sent_total{process="a", unit=""}': "0+1500x40",
            'tcp_connects_total{process="a", unit=""}': "0+0x40",
            'tcp_listeners{process="a", unit=""}': "0x40",
            'tcp_bytes_sent_total{process="b", unit=""}': "0+1500x40",
            'tcp_connects_total{process="b", unit=""}': "0+30x40",
            'tcp_listeners{process="b", unit=""}': "0x40",
            'udp_bytes_sent_total{process="b", unit=""}': "0+30x40",
        },
        {"5m": [alert(process="a"), alert(process="b")]},
    )


def test_conditions_that_select_every_connection_of_the_metric_are_left_out(export):
    exported = export(
        rule(
            metric='"open"', stat='"last"', where='{ direction = "out", state = "SYN_SENT" }', by='["process", "unit"]'
        )
        + rule(id='"out"', where='{ direction = "out" }')
        + rule(
            id='"by-failure"', metric='"connect_failures"', by='["failure"]', where='{ failure = "re*" }', summary='"x"'
        )
    )
    texts = [one.expr for group in exported.groups.values() for one in group]
    assert texts[0].startswith('sum without (state) (bpf_watchdog_tcp_open_connections{state="SYN_SENT", process')
    assert "direction" not in texts[1]
    assert 'failure=~"refused|reset"' in texts[2]


def test_gauges_over_a_window(export, evaluate):
    export(
        rule(id='"least"', metric='"open"', stat='"min"', fire_above="10")
        + rule(id='"most"', metric='"open"', stat='"max"', fire_above="10")
        + rule(id='"mean"', metric='"open"', stat='"mean"', fire_above="10")
        + rule(id='"now"', metric='"open"', stat='"last"', fire_above="10")
    )
    evaluate(
        {
            'tcp_open_connections{process="a", unit="x", state="ESTABLISHED"}': "6x40",
            'tcp_open_connections{process="a", unit="x", state="CLOSE_WAIT"}': "0x18 35 0x3 6x20",
        },
        {
            "5m": [alert("most", process="a"), alert("mean", process="a")],
            "7m": [alert(name, process="a") for name in ("least", "most", "mean", "now")],
        },
    )


def test_rules_of_the_host_keep_the_labels_of_the_target_alone(export, evaluate):
    export(rule(by="", summary='"{value}"', metric='"ports_in_use / ports"', stat='"mean"', fire_above='"80%"'))
    evaluate({"host_ports_in_use{}": "900x40", "host_ports{}": "1000x40"}, {"5m": [alert()]})


def test_percentiles_of_classic_buckets(export, evaluate):
    export(rule(metric='"connect_latency"', stat='"p90"', only_if='"count >= 20"', fire_above='"250ms"'))
    series = {}
    for process, up_to_limit, count in (("slow", 8, 10), ("fast", 10, 10), ("few", 0, 1)):
        labels = f'process="{process}", unit="x"'
        for bound, number in (("0.1", 0), ("0.25", up_to_limit), ("0.5", count), ("+Inf", count)):
            series[f'tcp_connect_latency_seconds_bucket{{{labels}, le="{bound}"}}'] = f"0+{number}x40"
        series[f"tcp_connect_latency_seconds_count{{{labels}}}"] = f"0+{count}x40"
    evaluate(series, {"5m": [alert(process="slow")]})


@pytest.mark.parametrize("bound", ["1", "1.0"])
def test_the_greatest_value_where_its_level_is_a_bound(export, evaluate, bound):
    export(rule(metric='"accept_queue"', stat='"max"', window='"5s"', fire_above='"80%"', clear_below='"45%"'))
    series = {}
    # Values before the window must not count: "old" had them, and has smaller ones only since.
    for process, small, all_values in (
        ("full", "0+4x40", "0+5x40"),
        ("old", "0+4x40", "100+4x40"),
        ("empty", "0x40", "0x40"),
    ):
        labels = f'process="{process}", unit="x"'
        for edge, values in (
            ("0.5", small),
            ("0.8", small),
            ("0.99", all_values),
            (bound, all_values),
            ("+Inf", all_values),
        ):
            series[f'tcp_accept_queue_ratio_bucket{{{labels}, le="{edge}"}}'] = values
        series[f"tcp_accept_queue_ratio_count{{{labels}}}"] = all_values
    evaluate(series, {"5m": [alert(process="full")]})


def test_a_wider_rule_is_silent_about_what_a_narrower_one_reports(export, evaluate):
    export(
        rule(by='["process", "unit"]')
        + rule(id='"host"', by="", summary='"{value}"', fire_above="150", unless_firing='["storm", "by-user"]')
        + rule(id='"by-user"', by='["user"]', summary='"{value}"')
    )
    alone = {'tcp_connects_total{process="a", unit="x"}': "0+3000x40"}
    of_a = alert(process="a", unit="x")
    evaluate(alone, {"5m": [of_a]})
    many = {f'tcp_connects_total{{process="p{number}", unit="x"}}': "0+900x40" for number in range(5)}
    evaluate(alone | many, {"5m": [of_a, alert("host")]})


def test_exceptions_end_with_their_last_day(export, evaluate):
    exception = """
[[rule.except]]
where = { process = "a", unit = "x.service" }
owner = "me"
reason = "test"
"""
    export(rule(exception, by='["process"]') + rule(exception + "until = 1970-01-01\n", id='"ends"', by='["process"]'))
    series = {
        'tcp_connects_total{process="a", unit="x.service"}': "0+3000x6000",
        'tcp_connects_total{process="b", unit="x.service"}': "0+3000x6000",
    }
    b, ends_b = alert(process="b"), alert("ends", process="b")
    evaluate(series, {"5m": [b, ends_b], "24h1m": [b, ends_b, alert("ends", process="a")]})


def test_a_group_below_its_level_ends_after_its_last_connection(export, evaluate):
    export(
        rule(fire_above="", fire_below="1", absent_for='"5m"')
        + rule(id='"host"', by="", summary='"{value}"', fire_above="", fire_below="1")
    )
    series = {
        'tcp_connects_total{process="a", unit="x"}': "0x60",
        'tcp_closes_total{process="a", unit="x"}': "0x60",
        'tcp_listeners{process="a", unit="x"}': "0x60",
        'tcp_open_connections{process="a", unit="x", state="ESTABLISHED"}': "1x10 0x50",
        'tcp_listeners{process="(other)", unit="(other)"}': "0x60",
        'tcp_closes_total{process="(other)", unit="(other)"}': "0x60",
        'tcp_connects_total{process="(other)", unit="(other)"}': "0x60",
    }
    evaluate(series, {"5m": [alert(process="a"), alert("host")], "10m": [alert("host")]})


def test_distinct_values_of_a_label(export, evaluate):
    export(rule(stat='"distinct:process"', by='["unit"]', summary='"{unit}"', fire_above="2"))
    series = {f'tcp_connects_total{{process="p{number}", unit="x"}}': "0+1x40" for number in range(3)}
    series |= {f'tcp_connects_total{{process="p{number}", unit="y"}}': f"0+{number}x40" for number in range(3)}
    evaluate(series, {"5m": [alert(unit="x")]})


# -------------------------------------------------------------------------------------------- texts, and their authors


def test_summaries_labels_and_runbooks_become_templates(export):
    exported = export(
        rule(
            by='["process", "unit"]',
            summary='"{process} of {unit} on {host}: {value} of {threshold}, {{x}} $labels {{{{ .Value }}}} {since}"',
            labels='{ team = "{{ $value }}" }',
            runbook='"https://wiki.example.net/{{x}}"',
        )
    )
    [[one]] = exported.groups.values()
    brace = '{{"{"}}'
    assert one.annotations == {
        "summary": '{{ or $labels.process "-" }} of {{ or $labels.unit "-" }} on {{ $labels.instance }}: '
        f"{{{{ $value | humanize }}}}/s of 100/s, {brace}x}} $labels {brace}{brace} .Value }}}} -",
        "runbook_url": f"https://wiki.example.net/{brace}{brace}x}}}}",
    }
    assert one.labels == {"severity": "warning", "team": f"{brace}{brace} $value }}}}"}
    assert one.notes == ("summary: {since} is not known to Prometheus",)


def test_hostile_patterns_and_texts_stay_inside_their_strings(export, evaluate):
    export(
        rule(
            where=r"""{ process = ["a\"} or up #", "\\", "*\u001b*"] }""",
            summary='"{process} \\" \\\\ # : {value}"',
            labels='{ team = "a: b # \\" \\\\" }',
        )
    )
    team = r'''team="a: b # \" \\"'''
    evaluate(
        {
            r'tcp_connects_total{process="a\"} or up #", unit="x"}': "0+3000x40",
            'tcp_connects_total{process="other", unit="x"}': "0+3000x40",
            r'tcp_connects_total{process="x\\x1bx", unit="x"}': "0+3000x40",
        },
        {"5m": [f"{alert(process=name)}, {team}" for name in (r"a\"} or up #", r"x\\x1bx")]},
    )


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"by": '["user"]', "summary": '"x"'}, "by: .* has no label user"),
        ({"where": '{ remote = "10.0.0.0/8" }'}, "where: .* has no label remote"),
        ({"where": '{ direction = "out" }', "metric": '"closes"'}, "where: .* has no label direction"),
        ({"where": '{ failure = "refused" }', "metric": '"closes"'}, "where: .* has no label failure"),
        ({"where": '{ failure = "refused" }', "metric": '"retransmits"'}, "where: "),
        ({"only_if": '"established >= 5"', "where": '{ direction = "out" }'}, "where: .*_established_total has no"),
        ({"by": '["failure"]', "summary": '"x"'}, "by: .* has no label failure"),
        ({"stat": '"distinct:remote"'}, "stat: .* has no label remote"),
        ({"stat": '"max"', "window": '"1d"'}, "stat: max over more than 1h"),
        ({"hits": '"3 of 5"'}, "hits: "),
        ({"absent": '"fire"', "fire_above": "", "fire_below": "1"}, "absent: "),
        ({"metric": '"accept_queue"', "stat": '"max"', "fire_above": '"70%"'}, "stat: 0.7 is no bound"),
        ({"metric": '"rtt"', "stat": '"min"', "fire_above": '"1s"'}, "stat: buckets know the min"),
        ({"metric": '"rtt"', "stat": '"p99"', "fire_above": '"10s"'}, "fire_above: the last bound"),
        ({"fire_above": "", "fire_below": "1", "where": '{ direction = "out" }'}, "fire_below: "),
        ({"metric": '"missed_ticks"', "stat": '"sum"'}, "by: bpf_watchdog_missed_ticks_total has no label process"),
    ],
)  # fmt: skip
def test_a_rule_that_promql_cannot_express_is_refused_with_the_reason(export, keys, reason):
    exported = export(rule(**keys))
    assert not any(exported.groups.values())
    assert re.match(reason, exported.refused["storm"].message), exported.refused["storm"].message
    assert exported.to_json()["refused"][0]["rule"] == "storm"


def test_groups_of_files_with_one_name_differ(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.toml").write_text(rule(id=f'"storm-{folder}"'))
    rules = load_rules([tmp_path / "a", tmp_path / "b"], receivers=None).rules
    assert list(export_rules(rules, SCRAPE_NS).groups) == ["bpf-watchdog net", "bpf-watchdog net (2)"]
