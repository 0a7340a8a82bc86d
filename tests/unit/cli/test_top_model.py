"""The rows of `top`: their order, the selected one, and the command that shows the same."""

import shlex

import pytest

from watchdog.cli import sample, sample_run
from watchdog.cli.argument_parser import ArgumentParser
from watchdog.cli.top_model import HISTORY, MAX_SHOWN_ROWS, TopModel, TopQuery
from watchdog.control.traffic_handler import Traffic, parse_where
from watchdog.measure.traffic_view import SUMMED, TopView


def traffic(model, rows, at=1):
    """Return an answer with `rows`: values by column; the others are empty."""
    cells = [[row.get(name, 0.0 if name in SUMMED else None) for name in model.view.columns] for row in rows]
    totals = dict.fromkeys(SUMMED, 0.0)
    return Traffic("web-1", at, 1.75e9, 1.0, 1.0, cells, len(rows), totals, {}, None)


def take(model, *names, at=1, **values):
    rows = [{"process": name, "pid": ord(name[0]), **values} for name in names]
    model.take(model.query(), traffic(model, rows, at))


def names(model):
    return [row["process"] for row in model.rows.values()]


@pytest.fixture
def model():
    return TopModel(TopView.PROCESSES, ())


def test_rows_are_in_the_order_of_the_answer_until_it_is_frozen(model):
    take(model, "a", "b", "c")
    take(model, "c", "a", "b", at=2)
    assert names(model) == ["c", "a", "b"]
    model.toggle_frozen()
    take(model, "new", "b", "c", at=3)
    assert names(model) == ["c", "a", "b", "new"]
    assert [key[0] for key in model.gone] == ["a"]
    model.toggle_frozen()
    take(model, "new", "b", "c", at=4)
    assert names(model) == ["new", "b", "c"]


def test_a_frozen_list_has_a_bound(model):
    take(model, "a")
    model.toggle_frozen()
    for at in range(100):
        take(model, *(f"{chr(200 + at)}{number}" for number in range(MAX_SHOWN_ROWS)), at=at + 2)
    assert len(model.rows) <= 1_000 + MAX_SHOWN_ROWS


def test_the_selection_follows_its_row(model):
    take(model, "a", "b", "c")
    model.move(1)
    model.move(1)
    assert model.selected[0] == "b"
    take(model, "b", "c", "a", at=2)
    assert model.selected[0] == "b"
    model.move(1)
    assert model.selected[0] == "c"
    take(model, "x", "a", at=3)
    assert model.selected not in model.rows
    assert "no row" in model.open_selected()
    model.move(1)
    assert model.selected[0] == "a"


def test_a_paused_list_takes_nothing_but_the_answer_to_a_new_query(model):
    take(model, "a")
    model.toggle_paused()
    take(model, "b", at=2)
    assert names(model) == ["a"]
    model.move_sort(1)
    take(model, "b", at=3)
    take(model, "c", at=4)
    assert names(model) == ["b"]


def test_an_answer_to_a_former_query_is_dropped(model):
    former = model.query()
    model.show(TopView.UNITS)
    model.take(former, traffic(TopModel(TopView.PROCESSES, ()), [{"process": "a"}]))
    assert model.rows == {}


def test_the_history_has_the_sorted_column_of_the_newest_ticks(model):
    for at in range(1, HISTORY + 10):
        take(model, "a", at=at, bytes_sent=float(at), bytes_received=1.0, connects=7.0)
    [key] = model.rows
    assert model.history(key) == [float(at + 1) for at in range(10, HISTORY + 10)]
    while model.sort != "connects":
        model.move_sort(1)
    assert model.history(key) == [7.0] * HISTORY
    take(model, "b", at=100)
    assert model.history(key)[-1] is None


def test_a_round_trip_time_stays_until_the_next_one(model):
    take(model, "a", **{"rtt.p99": 0.5})
    take(model, "a", at=2)
    assert [row["rtt.p99"] for row in model.rows.values()] == [0.5]


def test_a_process_opens_and_closes_with_the_list_as_it_was(model):
    take(model, "a", "b")
    model.move(1)
    before = model.query()
    assert model.open_selected() == ""
    assert model.query().where == (f"pid={ord('a')}",)
    assert model.query().traffic.view is TopView.SOCKETS
    model.close_process()
    assert model.query() == before
    assert (names(model), model.selected[0]) == (["a", "b"], "a")


def test_a_row_without_a_process_does_not_open(model):
    model.take(model.query(), traffic(model, [{"process": "(unattributed)", "pid": 0}]))
    model.move(1)
    assert "no process" in model.open_selected()
    assert model.process is None


def test_a_unit_opens_its_connections(model):
    model.show(TopView.UNITS)
    model.take(model.query(), traffic(model, [{"unit": "user@1[a].service", "container": ""}]))
    model.move(1)
    model.open_selected()
    assert model.query() == TopQuery(model.query().traffic, ("unit=user@1[[]a].service",))
    assert model.view is TopView.CONNECTIONS


@pytest.mark.parametrize("view", [view for view in TopView if view is not TopView.SOCKETS])
def test_the_command_with_every_sort_is_one_that_sample_takes(view):
    parser = ArgumentParser()
    sample.register(parser.add_subparsers())
    model = TopModel(view, ("process=a b", "remote!=10.0.0.0/8"))
    sorts = set()
    for _ in range(30):
        program, *arguments = shlex.split(model.command())
        assert program == "bpf-watchdog"
        options = sample_run._read_options(parser.parse_args(arguments))
        assert options.where == parse_where(model.where)
        sorts.add(options.sort)
        model.move_sort(1)
    assert len(sorts) > 10
