"""The template of a dashboard's address."""

import tomllib

import pytest

import factories
from watchdog.alerts.alert import AlertIdentity
from watchdog.alerts.identity import HostIdentity
from watchdog.config.document import Document
from watchdog.config.generator_url import fill_generator_url
from watchdog.config.settings import read_settings


def read(template):
    text = f'generator_url = "{template}"\n[labels]\nteam = "db"\n'
    document = Document(text, tomllib.loads(text), "watchdog.toml")
    return read_settings(document).values.generator_url, [str(one) for one in document.problems]


@pytest.mark.parametrize(
    "template",
    ["https://g.example/d?h={host}&p={process}", "http://g/{rule}/{team}/{fingerprint}", "https://g/{own_label}"],
)
def test_address_with_fields_is_accepted(template):
    assert read(template) == (template, [])


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("ftp://g/{host}", "must be an http or https address"),
        ("https://g/{proces}", 'did you mean "process"'),
        ("https://g/{process", "brace without its partner"),
        ("https://g/{a.b}", "unknown field"),
        ("https://g/{process!r}", "unknown field"),
        ("https://g/a b", "must be an http or https address"),
        ("{host}", "must be an http or https address"),
    ],
)
def test_other_texts_are_refused(template, problem):
    _, problems = read(template)
    assert any(problem in one for one in problems)


def test_values_are_encoded_and_missing_ones_are_empty():
    values = {"process": "a&b=/..\udcff é", "rule": "x"}
    assert (
        fill_generator_url("https://g/{rule}?p={process}&u={unit}", values)
        == "https://g/x?p=a%26b%3D%2F..%FF%20%C3%A9&u="
    )
    assert fill_generator_url("https://g/{process}", {"process": "é" * 1_000}) == ""


def test_alert_has_the_address_of_its_labels():
    identity = HostIdentity.of(
        "web-1", "m", (("team", "db"),), [], "https://g/{rule}?h={host}&p={process}&t={team}&s={severity}"
    )
    marked = identity.mark(factories.make_alert(rule="storm", labels=(("process", "crawler"),)))
    assert marked.identity.generator_url == "https://g/storm?h=web-1&p=crawler&t=db&s=critical"
    assert AlertIdentity.from_json(marked.identity.to_json()) == marked.identity
    assert marked.runbook is None
    former = {name: value for name, value in marked.identity.to_json().items() if name != "generator_url"}
    assert AlertIdentity.from_json(former).generator_url == ""
