"""JSON Schemas of watchdog.toml and of rule files, from the tables of keys in docs/ and the catalogue of metrics.

`make schemas` writes them to watchdog/cli/schemas. A test compares them with the readers of the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from watchdog.config.document import secret_forms
from watchdog.measure.catalogue import DIMENSIONS, METRICS, Dimension, DimensionKind
from watchdog.receivers.registry import RECEIVER_TYPES
from watchdog.receivers.syslog.syslog_receiver import FACILITIES
from watchdog.routing.alert_matching import ROUTE_DIMENSIONS

CHECKOUT = Path(__file__).parents[2]
FOLDER = CHECKOUT / "watchdog" / "cli" / "schemas"
_SETTINGS_PAGE = (CHECKOUT / "docs" / "configuration.md").read_text()
_RULES_PAGE = (CHECKOUT / "docs" / "rules.md").read_text()
# Editors know little beyond draft 4: neither `const`, `if` nor `$dynamicRef`.
_DRAFT = "http://json-schema.org/draft-07/schema#"
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_RANGE = re.compile(r"\b([\d,]+) to ([\d,]+)$")

Schema = dict[str, Any]
TEXT: Schema = {"type": "string", "minLength": 1}
TEXTS: Schema = {"type": "array", "items": TEXT}
BOOLEAN: Schema = {"type": "boolean"}
_UNITS = ("d", "h", "m", "s", "ms", "us")
_AMOUNTS = "".join(rf"(\d{{1,9}}(\.\d{{1,9}})?{unit})?" for unit in _UNITS)
DURATION: Schema = {"type": "string", "pattern": rf"^(?=\d){_AMOUNTS}$"}
LEVEL: Schema = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^-?\d"}]}
VALUE: Schema = {"anyOf": [{"type": "string"}, {"type": "integer"}]}
ADDRESS: Schema = {"type": "string", "pattern": "^$|^[Hh][Tt][Tt][Pp][Ss]?://"}
PATH: Schema = {"type": "string", "pattern": "^/"}
# An empty text stands for no value where a key has no default.
_MAY_BE_EMPTY: Schema = {"type": "string"}
_PATH_OR_NONE: Schema = {"type": "string", "pattern": "^(/|$)"}
_MAIL: Schema = {"type": "string", "pattern": "@"}
LABELS: Schema = {
    "type": "object",
    "patternProperties": {"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$": TEXT},
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Row:
    """A row of a table of keys: `kind` and `default` are "" where the table has no such column."""

    key: str
    kind: str
    default: str
    meaning: str


# ------------------------------------------------------------------------------------------------------------ the pages


def _rows(page: str, section: str, columns: tuple[str, ...]) -> list[Row]:
    """Return the rows of the first table of keys in a section; `columns`: those beside the key."""
    text = re.split(r"^#+ ", page.partition(f"# {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found: list[Row] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| `") else []
        if len(cells) == len(columns) + 1:
            values = dict(zip(columns, cells[1:], strict=True))
            meaning = _plain(values["meaning"])
            keys = re.findall(r"`(\w+)`", cells[0])
            found += (Row(key, values.get("type", ""), values.get("default", ""), meaning) for key in keys)
        elif found:
            break
    return found


def _plain(markdown: str) -> str:
    return _LINK.sub(r"\1", markdown).strip().removesuffix("; see")


def _hover(row: Row) -> str:
    default = f" Default: {_plain(row.default)}." if row.default not in {"", "required"} else ""
    text = row.meaning[:1].upper() + row.meaning[1:]
    return f"{text}{'' if text.endswith('.') else '.'}{default}"


# --------------------------------------------------------------------------------------------------------------- tables


def _table(properties: Schema, required: Iterable[str] = (), **more: Any) -> Schema:
    names = list(required)
    needed = {"required": names} if names else {}
    return {"type": "object", "properties": properties, **needed, "additionalProperties": False, **more}


def _from_rows(rows: Iterable[Row], types: Schema) -> Schema:
    """Return the table with the keys of `rows`; `types`: of the keys that need more than their `kind`."""
    properties: Schema = {}
    required: list[str] = []
    conditions: list[Schema] = []
    for row in rows:
        if row.kind == "secret":
            forms = secret_forms(row.key)
            for form in forms:
                kind = types.get(row.key, TEXT) if form == row.key else PATH if form == f"{row.key}_file" else TEXT
                properties[form] = _described(_secret_hover(row, form), kind)
            if row.default == "required":
                conditions.append({"anyOf": [{"required": [form]} for form in forms]})
            conditions += ({"not": {"required": list(pair)}} for pair in combinations(forms, 2))
        else:
            properties[row.key] = _described(_hover(row), types.get(row.key) or _kind(row))
            required += [row.key] if row.default == "required" else []
    return _table(properties, required, **({"allOf": conditions} if conditions else {}))


def _described(text: str, kind: Schema) -> Schema:
    """Return the schema of a key with its text to hover: its meaning and, where it has units, their notation."""
    return {"description": text + _NOTATIONS.get(json.dumps(kind), ""), **kind}


def _secret_hover(row: Row, form: str) -> str:
    key, file, variable, _ = secret_forms(row.key)
    where = {key: "", file: "File with: ", variable: "Environment variable with: "}
    return where.get(form, "systemd credential with: ") + _hover(row)


def _kind(row: Row) -> Schema:
    match row.kind:
        case "duration":
            return DURATION
        case "boolean":
            return BOOLEAN
        case "list" | "array of texts":
            return TEXTS
        case "integer":
            limits = _RANGE.search(row.meaning.partition(";")[0])
            numbers = [int(text.replace(",", "")) for text in limits.groups()] if limits else []
            return {"type": "integer", **dict(zip(("minimum", "maximum"), numbers, strict=False))}
        case "text or list":
            return {"anyOf": [TEXT, TEXTS]}
        case "text":
            return TEXT
    raise ValueError(f"no schema for {row}")


# ----------------------------------------------------------------------------------------------------------- conditions

_LIST = r"^!?@[a-z][a-z0-9_-]*$"
_PATTERNS: Mapping[DimensionKind, str] = {
    DimensionKind.NUMBER: r"^!?\d{1,10}(-\d{1,10})?$",
    DimensionKind.ADDRESS: r"^!?[0-9A-Fa-f.:]+(/[0-9]{1,3})?$",
    DimensionKind.CHOICE: r"[*?\[]",  # a glob; the values themselves are listed
}


def _condition(dimension: Dimension) -> Schema:
    """Return the schema of the values that a condition on `dimension` can have, for one or a list of them."""
    pattern = _PATTERNS.get(dimension.kind)
    kinds: list[Schema] = [{"type": "string"} if pattern is None else {"type": "string", "pattern": pattern}]
    if pattern is not None:
        kinds.append({"type": "string", "pattern": _LIST})
    if dimension.kind is DimensionKind.NUMBER:
        kinds.append({"type": "integer", "minimum": dimension.minimum, "maximum": dimension.maximum})
    if dimension.kind is DimensionKind.CHOICE:
        choices = [*dimension.choices, *(f"!{choice}" for choice in dimension.choices)]
        kinds.insert(0, {"type": "string", "enum": choices})
    array = {"type": "array", "items": {"anyOf": kinds}, "minItems": 1}
    return {"description": f"{dimension.meaning[:1].upper()}{dimension.meaning[1:]}.", "anyOf": [*kinds, array]}


def _conditions(dimensions: Mapping[str, Dimension]) -> Schema:
    """Return the properties of a table of conditions; they are in `_definitions` of the same dimensions."""
    return {name: {"$ref": f"#/definitions/{name}"} for name in sorted(dimensions)}


def _definitions(dimensions: Mapping[str, Dimension]) -> Schema:
    return {name: _condition(one) for name, one in sorted(dimensions.items())}


_WHERE: Schema = _table(_conditions(DIMENSIONS))
# Rules can have further labels, which a file of settings does not know.
_OTHER_LABEL: Schema = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_MATCHERS: Schema = {
    "type": "object",
    "properties": _conditions(ROUTE_DIMENSIONS),
    "additionalProperties": _OTHER_LABEL,
}
_SOME_MATCHERS: Schema = {**_MATCHERS, "minProperties": 1}

# ------------------------------------------------------------------------------------------------------------- settings

_COLUMNS = ("type", "default", "meaning")
_SOME_TEXTS: Schema = {**TEXTS, "minItems": 1}
_HEADERS: Schema = {"type": "object", "additionalProperties": TEXT}
_ENUMS = {
    "email": {"tls": ["starttls", "implicit", "none"]},
    "syslog": {"format": ["rfc5424", "local"], "framing": ["octet-counting", "lf"], "facility": sorted(FACILITIES)},
}
_COMMON: Schema = {
    **dict.fromkeys(("ca_file", "cert_file"), _PATH_OR_NONE),
    **dict.fromkeys(("escalate_to", "username"), _MAY_BE_EMPTY),
    "rate_limit": {"type": "string", "pattern": "^none$|/"},
}
_TYPES: dict[str, Schema] = {
    "alertmanager": {"urls": _SOME_TEXTS},
    "command": {"command": {"type": "array", "items": [PATH], "additionalItems": TEXT, "minItems": 1}},
    "email": {
        "port": {"type": "integer", "minimum": 1, "maximum": 65_535},
        "from": _MAIL,
        "to": {"type": "array", "items": _MAIL, "minItems": 1},
    },
    "webhook": {"headers": _HEADERS, "template": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
}
_TABLE_TYPES: dict[str, Schema] = {
    "docs": {"runbook_base": ADDRESS},
    "log": {"format": {"type": "string", "enum": ["text", "json"]}},
    "routing": {"default": _SOME_TEXTS},
    "networks": dict.fromkeys(("country_file", "asn_file"), _PATH_OR_NONE),
    "web": {"listen": {"type": "string", "pattern": "^$|:"}},
}


def settings_schema() -> Schema:
    """Return the schema of watchdog.toml."""
    types = {
        "labels": LABELS,
        "generator_url": ADDRESS,
        **{table: _section(f"`[{table}]`", _TABLE_TYPES.get(table, {})) for table in _tables_of_settings()},
        "route": _array(_section("`[[route]]`", {"where": _MATCHERS, "receivers": _SOME_TEXTS})),
        "mute": _array(_section("`[[mute]]`", {"where": _MATCHERS, "times": {"anyOf": [TEXT, _SOME_TEXTS]}})),
        "inhibit": _array(_section("`[[inhibit]]`", {"source": _SOME_MATCHERS, "target": _SOME_MATCHERS})),
        "receiver": _array({"oneOf": [_receiver(name) for name in RECEIVER_TYPES]}),
        "heartbeat": _section(
            "`[heartbeat]`", {**_COMMON, "headers": _HEADERS, "method": {"type": "string", "enum": ["POST", "GET"]}}
        ),
    }
    root = _section("Tables of the file", types)
    head = {"$schema": _DRAFT, "title": "watchdog.toml, the settings of bpf-watchdog"}
    return {**head, "definitions": _definitions(ROUTE_DIMENSIONS), **root}


def _tables_of_settings() -> Iterator[str]:
    for row in _rows(_SETTINGS_PAGE, "Tables of the file", _COLUMNS):
        if row.kind == "table" and row.key not in {"labels", "heartbeat"}:
            yield row.key


def _section(section: str, types: Schema) -> Schema:
    return _from_rows(_rows(_SETTINGS_PAGE, section, _COLUMNS), types)


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _receiver(name: str) -> Schema:
    common = _rows(_SETTINGS_PAGE, "`[[receiver]]`", _COLUMNS)
    own = _rows(_SETTINGS_PAGE, f"Type `{name}`", _COLUMNS)
    own = [_beside_another(row) if row.default.startswith("required with") else row for row in own]
    enums = {key: {"type": "string", "enum": values} for key, values in _ENUMS.get(name, {}).items()}
    types: Schema = {
        "name": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,63}$"},
        "type": {"type": "string", "enum": [name]},
        **_COMMON,
        **_TYPES.get(name, {}),
        **enums,
    }
    table = _from_rows([*common, *own], types)
    if name == "slack":
        table["allOf"] += _slack_conditions()
    return {"title": name, **table}


def _slack_conditions() -> list[Schema]:
    """Return the conditions of a webhook, or a bot with its channel."""
    webhooks = [{"required": [form]} for form in secret_forms("webhook_url")]
    bots = [{"required": ["channel", form]} for form in secret_forms("bot_token")]
    of_bots = [{"required": [key]} for key in ("channel", *secret_forms("bot_token"), *secret_forms("api_url"))]
    return [{"anyOf": [*webhooks, *bots]}, {"not": {"allOf": [{"anyOf": webhooks}, {"anyOf": of_bots}]}}]


def _beside_another(row: Row) -> Row:
    """Return the row of a key that is required beside another one only."""
    return Row(row.key, row.kind, "", f"{row.meaning}; {row.default}")


# ---------------------------------------------------------------------------------------------------------------- rules

_DIMENSION: Schema = {"type": "string", "enum": sorted(DIMENSIONS)}
_LEVELS: Schema = {"anyOf": [*LEVEL["anyOf"], _table({"warning": LEVEL, "critical": LEVEL})]}
_SOME_WHERE: Schema = {**_WHERE, "minProperties": 1}
_ID: Schema = {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,63}$"}
_RARITY: Schema = {"anyOf": [DURATION, _table({"warning": DURATION, "critical": DURATION}, minProperties=1)]}
_STAT: Schema = {
    "anyOf": [
        {"type": "string", "enum": ["rate", "sum", "mean", "max", "min", "last", "count"]},
        {"type": "string", "enum": ["p50", "p90", "p95", "p99", "p999"]},
        {"type": "string", "enum": [f"distinct:{name}" for name in sorted(DIMENSIONS)]},
        {"type": "string", "pattern": r"^p(\d[1-9]|[1-9]0|9\d\d)$"},
    ]
}


_EXPRESSION: Schema = {"type": "string", "pattern": "[^A-Za-z0-9_]"}  # several words, or one with blanks
_FIRES = ("fire_above", "fire_below", "baseline", "novelty")
_NEEDED: list[Schema] = [
    {"anyOf": [{"required": ["stat", "window"]}, {"required": ["novelty"]}]},
    {"anyOf": [{"required": [key]} for key in _FIRES]},
]


def rules_schema() -> Schema:
    """Return the schema of rule files."""
    rule = _rule_properties()
    required = ["id", "summary", "metric"]
    override = {**rule, "enabled": {**rule["enabled"], "description": "`false`: the shipped rule is not in force."}}
    lists: Schema = {"type": "array", "items": VALUE, "minItems": 1}
    properties = {
        "lists": {
            "description": 'Named values for `where`: `"@name"` stands for all values of a list.',
            "type": "object",
            "patternProperties": {"^[a-z][a-z0-9_-]*$": lists},
            "additionalProperties": False,
        },
        "rule": {"description": "A rule.", **_array(_table(rule, required, allOf=_NEEDED))},
        "override": {
            "description": "Changes of single keys of a shipped rule.",
            **_array(_table(override, ["id"], minProperties=2)),
        },
    }
    head = {"$schema": _DRAFT, "title": "A rule file of bpf-watchdog"}
    return {**head, "definitions": _definitions(DIMENSIONS), **_table(properties)}


def _rule_properties() -> Schema:
    types: Schema = {
        "id": _ID,
        "summary": TEXT,
        "metric": {"anyOf": [{"type": "string", "enum": sorted(METRICS)}, _EXPRESSION]},
        "stat": _STAT,
        "by": {"type": "array", "items": _DIMENSION},
        "where": _WHERE,
        "only_if": {"type": "string", "pattern": "[<>]"},
        "baseline": _sub_table("Baselines", _BASELINE_TYPES, "key of `[rule.baseline]`"),
        "hits": {"type": "string", "pattern": r"^\s*\d+\s+of\s+\d+\s*$"},
        "absent": {"type": "string", "enum": ["fire", "keep", "resolve"]},
        "runbook": {"type": "string", "pattern": "^https?://"},
        "except": _array(_sub_table("Exceptions", {"where": _SOME_WHERE, "until": _DAY}, "key")),
        "labels": LABELS,
        "novelty": _sub_table("Novelty", _NOVELTY_TYPES, "key"),
        **dict.fromkeys(("fire_above", "fire_below", "clear_above", "clear_below"), _LEVELS),
        **dict.fromkeys(("window", "for", "keep_firing_for", "absent_for"), DURATION),
        "receivers": _SOME_TEXTS,
        **dict.fromkeys(("unless_firing", "inhibits"), TEXTS),
        **dict.fromkeys(("send_resolved", "enabled"), BOOLEAN),
    }
    rows = {row.key: row for row in _rows(_RULES_PAGE, "Keys", ("required", "meaning"))}
    return {key: _described(_hover(row), types[key]) for key, row in rows.items()}


_NOTATIONS = {
    json.dumps(DURATION): ' A duration, in d, h, m, s, ms, us: "90s", "1h30m".',
    **dict.fromkeys(map(json.dumps, (LEVEL, _LEVELS)), ' A number, or a text with a unit: "100MB", "250ms", "5%".'),
    json.dumps(_RARITY): ' Durations, in d and h: "30d".',
}
_DAY: Schema = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
_BASELINE_TYPES: Schema = {
    "floor": LEVEL,
    "rarity": _RARITY,
    "learn": DURATION,
    "season": {"type": "string", "enum": ["day", "week", "none"]},
    "fire": {"type": "string", "enum": ["above", "below"]},
}
_NOVELTY_TYPES: Schema = {
    "learn": DURATION,
    "forget": DURATION,
    "severity": {"type": "string", "enum": ["warning", "critical"]},
}


def _sub_table(section: str, types: Schema, head: str) -> Schema:
    text = re.split(r"^## ", _RULES_PAGE.partition(f"## {section}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    table = re.search(rf"^\| {re.escape(head)} \|(.*)\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    if table is None:
        raise ValueError(f"docs/rules.md has no table of keys in {section}")
    columns = [one.strip() for one in table[1].strip(" |").split("|")]
    properties: Schema = {}
    required: list[str] = []
    for line in table[2].splitlines():
        keys, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        values = dict(zip(columns, cells, strict=False)) if len(cells) == len(columns) else {"meaning": cells[-1]}
        meaning = values.get("meaning", cells[-1])
        for key in re.findall(r"`(\w+)`", keys):
            row = Row(key, "", values.get("default", ""), _plain(meaning))
            properties[key] = _described(_hover(row), types.get(key, TEXT))
            if values.get("required") == "yes" or meaning.startswith("required"):
                required.append(key)
    return _table(properties, required)


SCHEMAS = {"settings": settings_schema, "rules": rules_schema}


def schema_text(kind: str) -> str:
    """Return the file of a schema."""
    return json.dumps(SCHEMAS[kind](), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the schemas."""
    for kind in SCHEMAS:
        (FOLDER / f"{kind}.json").write_text(schema_text(kind))


if __name__ == "__main__":
    main()
