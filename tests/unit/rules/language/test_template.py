import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchdog.rules.language.formats import FORMATS
from watchdog.rules.language.template import (
    TemplateError,
    TemplateField,
    foreign_placeholders,
    parse_summary,
    render_template,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ()),
        ("plain", ("plain",)),
        ("{process}", (TemplateField("process"),)),
        ("{process} opens {value:rate}!", (TemplateField("process"), " opens ", TemplateField("value", "rate"), "!")),
        ("{value}{threshold}", (TemplateField("value", "bytes"), TemplateField("threshold", "bytes"))),
        (
            "{window} {since} {for:ago}",
            (TemplateField("window", "seconds"), " ", TemplateField("since", "ago"), " ", TemplateField("for", "ago")),
        ),
        ("a {{b}} {{{rule}}}", ("a {b} {", TemplateField("rule"), "}")),
    ],
)
def test_text_and_fields_are_parsed(text, parts):
    assert parse_summary(text, ("process",), "bytes").parts == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{proces}", 'unknown field "proces": did you mean "process"?'),
        ("{unit}", "{unit} has many values in one alert: add it to by to use it as a field"),
        ("{}", 'unknown field "": known are for, host, peak, process, rule, severity, since, threshold, value, window'),
        ("{value:rats}", 'unknown format "rats": did you mean "rate"?'),
        ("{value:}", 'unknown format "": known are ago, bytes, bytes/s, count, percent, rate, seconds'),
        ("{value.real}", 'unknown field "value.real": did you mean "value"?'),
        ("{value!r}", 'unknown field "value!r": did you mean "value"?'),
        ("{process:rate}", "{process} is a text and takes no format"),
        ("{window:bytes}", "{window} is a time: use seconds or ago"),
        ("{process", "single {: write {{ for a brace"),
        ("process}", "single }: write }} for a brace"),
        ("{pro{cess}}", 'single {: write {{ for a brace; unknown field "cess": did you mean "process"?'),
        (
            "{proces} {valu} {proces}",
            'unknown field "proces": did you mean "process"?; unknown field "valu": did you mean "value"?',
        ),
        ("two\nlines", "must be one line without control characters"),
        ("\u202e", "must be one line without control characters"),
        ("x" * 501, "longer than 500 characters"),
    ],
)
def test_an_invalid_template_has_an_error_message(text, message):
    with pytest.raises(TemplateError) as caught:
        parse_summary(text, ("process",))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("{{process}} opens", '"{{process}}" is no field: write {process}'),
        ("{{ process }} opens", '"{{ process }}" is no field: write {process}'),
        ("{{ $labels.process }} opens", '"{{ $labels.process }}" is no field: write {process}'),
        ("{{ .Value }} opens", '"{{ .Value }}" is no field: write {value}'),
        ("{{ $value | humanize }}", '"{{ $value | humanize }}" is no field: write {value}'),
        ("{{ $externalURL }}", '"{{ $externalURL }}" is no field and is shown as it is'),
        ("${process} opens", '"${process}" is no field: write {process}'),
        ("$process opens", '"$process" is no field: write {process}'),
        ("%{process} opens", '"%{process}" is no field: write {process}'),
        ("%(process)s opens", '"%(process)s" is no field: write {process}'),
    ],
)
def test_placeholders_of_other_languages_are_noted(text, note):
    assert list(foreign_placeholders(text)) == [note]


@pytest.mark.parametrize(
    "text", ["{process} opens {{as JSON}}", "{{{rule}}}", "costs $5", "100 %", "{value} of $HOME", "{{}}", "{process}"]
)
def test_braces_and_signs_that_are_meant_are_not_noted(text):
    assert list(foreign_placeholders(text)) == []


def test_substituted_text_is_not_parsed_for_fields():
    template = parse_summary("{process}: {value} > {threshold} on {host}", ("process",))
    values = {"process": "{host}{{value}}", "value": 1234.0, "threshold": 100, "host": "{process}"}
    assert render_template(template, values) == "{host}{{value}}: 1,234 > 100 on {process}"


def test_an_empty_text_is_shown_as_a_dash():
    assert render_template(parse_summary("unit {unit}", ("unit",)), {"unit": ""}) == "unit -"


@given(st.text())
def test_any_text_is_parsed_or_raises_a_template_error(text):
    try:
        template = parse_summary(text, ())
    except TemplateError:
        return
    assert template.text == text


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        ("count", 0, "0"),
        ("count", 3, "3"),
        ("count", 1234, "1,234"),
        ("count", 12.34, "12.3"),
        ("count", 999.96, "1,000"),
        ("count", 0.0523, "0.052"),
        ("count", -5.5, "-5.5"),
        ("rate", 120, "120/s"),
        ("rate", 99.94, "99.9/s"),
        ("rate", 99.96, "100/s"),
        ("rate", 1.04, "1/s"),
        ("bytes", 0, "0 B"),
        ("bytes", 999, "999 B"),
        ("bytes", 1_200_000, "1.2 MB"),
        ("bytes", 999_600, "1 MB"),
        ("bytes", 999_400, "999 kB"),
        ("bytes", 5e18, "5,000 PB"),
        ("bytes", -2_500, "-2.5 kB"),
        ("bytes/s", 617_000_000, "617 MB/s"),
        ("seconds", 0, "0 s"),
        ("seconds", 0.0000004, "0.4 us"),
        ("seconds", 0.000250, "250 us"),
        ("seconds", 0.0123, "12.3 ms"),
        ("seconds", 0.9996, "1 s"),
        ("seconds", 4.5, "4.5 s"),
        ("seconds", 59.99, "1 min"),
        ("seconds", 120, "2 min"),
        ("seconds", 5400, "1.5 h"),
        ("seconds", 86_400 * 3, "3 d"),
        ("percent", 0.053, "5.3 %"),
        ("percent", 1, "100 %"),
        ("ago", 12.4, "12 s ago"),
        ("ago", -3, "0 s ago"),
        ("ago", 180, "3 min ago"),
        ("percent", math.inf, "infinite"),
        ("bytes", -math.inf, "-infinite"),
        ("seconds", math.nan, "unknown"),
    ],
)
def test_numbers_are_shown_in_readable_form(form, value, text):
    assert render_template(parse_summary(f"{{value:{form}}}", ()), {"value": value}) == text


@given(st.sampled_from(sorted(FORMATS)), st.floats())
def test_every_number_has_a_text_in_every_format(form, value):
    assert 0 < len(FORMATS[form](value)) < 450
