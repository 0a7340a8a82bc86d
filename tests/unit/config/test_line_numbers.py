import random

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from watchdog.config.line_numbers import find_line_numbers

KEYS = st.sampled_from(["a", "b-1", "c_2", "3", "", "é", "dot.ted", 'quo"te', "#no", "[x]", "sp ace", "tab\t"])
VALUES = st.recursive(
    st.sampled_from(["integer", "float", "basic", "literal", "multi", "multi literal", "date"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


class Writer:
    """Writes a structure in one of the many ways that TOML has, each leaf with a mark that occurs nowhere else."""

    def __init__(self, choices):
        self.choices = choices
        self.marks = 0
        self.expected = {}

    def document(self, tables):
        return "".join(self.junk() + self.table(name, table) for name, table in tables.items())

    def junk(self):
        return self.choices.choice(["", "\n", '# [not] = { a "header\n', "  # '''\n", "\t\n"])

    def key(self, key):
        if self.choices.random() < 0.3 and key.isprintable() and "'" not in key:
            return f"'{key}'"
        if key and all(letter in "abc-_123" for letter in key) and self.choices.random() < 0.8:
            return key
        return '"' + "".join(f"\\u{ord(letter):04x}" if letter in '"\té' else letter for letter in key) + '"'

    def table(self, name, table):
        if isinstance(table, list):
            return "".join(
                f"[[ {self.key(name)} ]] # ]\n" + self.body((name, index), element)
                for index, element in enumerate(table)
            )
        return f"[{self.key(name)}]\n" + self.body((name,), table)

    def body(self, path, table):
        return "".join(
            f"{self.junk()}{self.key(key)} = {self.value((*path, key), value)}  # = {{\n"
            for key, value in table.items()
        )

    def value(self, path, value):
        if isinstance(value, list):
            return "[" + "".join(self.space() + self.value((*path, i), v) + "," for i, v in enumerate(value)) + " ]"
        if isinstance(value, dict):
            return "{ " + ", ".join(f"{self.key(k)} = {self.value((*path, k), v)}" for k, v in value.items()) + " }"
        return self.leaf(path, value)

    def space(self):
        return self.choices.choice(["", " ", "\n", " # [,\n\n  "])

    def leaf(self, path, form):
        self.marks += 1
        mark = f"{7_000_000 + self.marks}"
        self.expected[path] = mark
        return {
            "integer": mark,
            "float": f"{mark}.5e3",
            "basic": f'"{mark} \\" # [ \\\\"',
            "literal": f"'{mark} \\ # {{ \"'",
            "multi": f'"""{mark} "" \\""" \n[x]\n key = 3 \\\\\n"""""',
            "multi literal": f"'''{mark} '' \n[x]\n # \n''''",
            "date": f"1979-05-27 07:32:00.{self.marks:06}",
        }[form]


def leaf_paths(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaf_paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaf_paths(inner, (*path, index))
    yield path


@settings(max_examples=100, deadline=None)
@given(
    tables=st.dictionaries(
        KEYS,
        st.dictionaries(KEYS, VALUES, max_size=4) | st.lists(st.dictionaries(KEYS, VALUES), min_size=1, max_size=3),
    ),
    seed=st.integers(0, 2**32),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_every_key_and_element_has_the_line_that_it_is_written_on(tables, seed, newline):
    writer = Writer(random.Random(seed))
    text = writer.document(tables).replace("\n", newline)
    lines = find_line_numbers(text)
    assert lines.keys() == set(leaf_paths(tomli.loads(text))) - {()}
    for path, mark in writer.expected.items():
        place = text.find(mark)
        if place != -1:  # dates hold no mark
            assert lines[path] == text.count("\n", 0, place) + 1, path


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("[[rule]]\n[[rule]]\n\n[[rule]]\nid = 3\n", ("rule", 2, "id"), 5),
        ("[[rule]]\n[[rule]]\n[rule.fire]\nx = 1\n", ("rule", 1, "fire", "x"), 4),
        ("[[a.b]]\n[[a.b.c]]\n[[a.b.c]]\nx = 1\n[[a.b]]\n[[a.b.c]]\nx = 2\n", ("a", "b", 1, "c", 0, "x"), 7),
        ("a.b.c = 1\n", ("a", "b"), 1),
        ("x = 1\n[a . b]\nc.d = 1\n", ("a", "b", "c", "d"), 3),
        ('a = """\n\n"""\nb = 1\n', ("b",), 4),
        ('a = """x"""""\nb = 1\n', ("b",), 2),
        ("a = [\n [1, 2],\n [3,\n 4]\n]\n", ("a", 1, 1), 4),
        ("a = [{ x = 1 },\n { y = [ 1,\n { z = 2 } ] }]\n", ("a", 1, "y", 1, "z"), 3),
        ("a = {}\nb = []\nc = 1\n", ("c",), 3),
    ],
)
def test_finds_keys_in_arrays_of_tables_dotted_keys_and_values_of_several_lines(text, path, line):
    tomli.loads(text)
    assert find_line_numbers(text)[path] == line
