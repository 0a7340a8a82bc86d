"""Rule files → rules, all or nothing: with one problem in any file, no rule is used."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from watchdog.clock import SECOND_NS
from watchdog.config.document import Document
from watchdog.config.durations import format_duration
from watchdog.config.settings import MAX_FILE_BYTES, SETTINGS_TABLES, open_document, unreadable_file
from watchdog.config.trusted_files import flaw_of_open_folder
from watchdog.errors import ConfigError, Problem
from watchdog.resources import plain_path, shipped_rules_folder
from watchdog.rules.language.narrower_rules import check_narrower_rules
from watchdog.rules.language.overrides import OWN_PREFIX
from watchdog.rules.language.parse_rule import RuleEnvironment, read_rule
from watchdog.rules.language.rule import Rule
from watchdog.rules.language.rule_source import RuleOrigin, RuleSource, table_source

# So much is read beside the ticks within a second, and judged in time in each of them, on a loaded host too.
MAX_RULES: Final = 1_000
MAX_FILES: Final = 1_000  # of any kind in one folder
MAX_FOLDER_BYTES: Final = 4_000_000

_MEANT_TO_BE_SKIPPED = re.compile(
    r"^\.|^README|\.(md|txt|bak|orig|rej|old|off|disabled|sample|example|sw[a-p]|dpkg-\w+|rpm\w+|ucf-\w+)$|[~#]$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of all files, in the order of files and lines, and notes for their authors.

    `sources`: of the rules, by id. `disabled`: ids of rules that were read, and of shipped ones, that are not in force.
    `texts`: of the files, by name.
    """

    rules: tuple[Rule, ...]
    notes: tuple[Problem, ...]
    sources: Mapping[str, RuleSource] = field(default_factory=dict)
    disabled: frozenset[str] = frozenset()
    texts: Mapping[str, str] = field(default_factory=dict)


def load_rules(
    paths: Iterable[str | os.PathLike[str]], *, receivers: Collection[str] | None, interval_ns: int = SECOND_NS
) -> RuleSet:
    """Load the rules of files and folders.

    `receivers`: the names that rules may use; None if unknown here. `interval_ns`: the sampling interval.

    Raises:
        ConfigError: with every problem of every file.
    """
    return _load(paths, RuleEnvironment(receivers, interval_ns, {}))


def load_layered_rules(
    own: str | os.PathLike[str],
    *,
    receivers: Collection[str] | None,
    interval_ns: int = SECOND_NS,
    shipped: bool | None = None,
) -> RuleSet:
    """Load the rules of the file or folder `own`, and the shipped rules that stay in force beside them.

    `shipped`: whether all shipped rules do; None: only if `own` has overrides and no rule. The watchdog's rules about
    itself do in any case, unless an override disables them; their windows are made longer for a long `interval_ns`. A
    rule of `own` takes the place of the shipped one with its id.

    Raises:
        ConfigError: with every problem of every file; an override of a shipped rule that is not in force is one.
    """
    environment = RuleEnvironment(receivers, interval_ns, {})
    loaded = _load([own], environment)
    rules = with_shipped_rules(loaded.rules, environment, shipped=shipped)
    disabled = disabled_rules(rules, environment)
    return RuleSet(rules, loaded.notes, environment.sources, disabled, environment.texts)


def disabled_rules(rules: Iterable[Rule], environment: RuleEnvironment) -> frozenset[str]:
    """Return the ids of rules that were read with `environment`, and of shipped ones, without those of `rules`."""
    known = {*environment.rule_locations, *environment.overrides.shipped_tables}
    return frozenset(known.difference(rule.id for rule in rules))


def only_self_watch(loaded: RuleSet) -> RuleSet:
    """Return the watchdog's rules about itself among the shipped rules: those that `shipped = false` leaves."""
    kept = tuple(rule for rule in loaded.rules if rule.id.startswith(OWN_PREFIX))
    dropped = {rule.id for rule in loaded.rules}.difference(rule.id for rule in kept)
    return RuleSet(kept, loaded.notes, loaded.sources, loaded.disabled | dropped)


def with_shipped_rules(
    rules: tuple[Rule, ...], environment: RuleEnvironment, *, shipped: bool | None
) -> tuple[Rule, ...]:
    """Return the rules of the user, read with `environment`, and the shipped ones beside them: `load_layered_rules`.

    Raises:
        ConfigError: an override of a shipped rule that is not in force.
    """
    overrides = environment.overrides.entries
    if not rules and not overrides:
        return rules
    if shipped is None:
        shipped = all(rule.id in overrides for rule in rules)
    unused = [identity for identity in overrides if not shipped and not identity.startswith(OWN_PREFIX)]
    if unused:
        raise ConfigError(sorted(_unused_override(environment, identity) for identity in unused))
    taken = {*overrides, *environment.rule_locations}
    all_shipped = load_rules([shipped_rules_folder()], receivers=environment.receivers)
    added = (rule for rule in all_shipped.rules if rule.id not in taken)
    kept = [rule for rule in added if shipped or rule.id.startswith(OWN_PREFIX)]
    min_window_ns = 2 * environment.interval_ns
    for rule in kept:
        environment.sources[rule.id] = source = all_shipped.sources[rule.id]
        if rule.window_ns < min_window_ns:
            window, note = format_duration(min_window_ns), "two sampling intervals"
            environment.sources[rule.id] = source.with_value("window", window, note)
    return (*rules, *(replace(rule, window_ns=max(rule.window_ns, min_window_ns)) for rule in kept))


def _unused_override(environment: RuleEnvironment, identity: str) -> Problem:
    entry = environment.overrides.entries[identity]
    message = f'"{identity}" is not in force beside rules of your own: set shipped = true in [rules] of watchdog.toml'
    return Problem(entry.file, entry.line, "override.id", message)


def _load(paths: Iterable[str | os.PathLike[str]], environment: RuleEnvironment) -> RuleSet:
    problems: list[Problem] = []
    notes: list[Problem] = []
    rules: list[Rule] = []
    documents: list[Document] = []
    count = 0
    for document in _open_documents(paths, problems, notes):
        documents.append(document)
        environment.lists.read(document)
        count += sum(
            len(tables) for key in ("rule", "override") if isinstance(tables := document.root.data.get(key), list)
        )
        if count > MAX_RULES:  # one problem, below
            break
    for document in documents:
        environment.texts[document.file] = document.text
        rules.extend(read_rules(document, environment))
        problems.extend(document.problems)
        notes.extend(document.notes)
        if environment.rule_count > MAX_RULES:
            raise ConfigError(sorted(problems))
    circles, unknown = check_narrower_rules(rules, environment.overrides, environment.interval_ns)
    problems.extend(circles)
    notes.extend(unknown)
    if problems:
        raise ConfigError(sorted(problems))
    return RuleSet(tuple(rules), tuple(sorted(notes)), environment.sources, texts=environment.texts)


def _open_documents(
    paths: Iterable[str | os.PathLike[str]], problems: list[Problem], notes: list[Problem]
) -> Iterator[Document]:
    """Yield the files of `paths`; those that cannot be opened are `problems`."""
    for path in paths:
        try:
            files = toml_files(Path(path))
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        notes.extend(notes_on_skipped_files(Path(path)))
        for file in files:
            try:
                # The shipped rules are part of the program, which is judged as a whole (kernel/trusted_code.py).
                yield open_document(file, require_trust=path != shipped_rules_folder())
            except ConfigError as error:
                problems.extend(error.problems)


def toml_files(path: Path) -> list[str]:
    """Return `path` itself or, if it is a folder, the TOML files in it in byte order.

    Rule tests, hidden files, and leftovers of editors and package managers are left out: these are hidden or have
    another suffix.

    Raises:
        ConfigError: the folder cannot be read, everyone can add files to it, it has over `MAX_FILES` entries, or over
            `MAX_FOLDER_BYTES` of rules.
    """
    if not os.path.isdir(path):  # noqa: PTH112 - Path's raises without permission; the error of opening is clearer
        return [str(path)]
    try:
        names = [entry.name for entry in islice(path.iterdir(), MAX_FILES + 1)]
    except OSError as error:
        raise unreadable_file(str(path), error) from None
    if flaw := flaw_of_open_folder(str(path)):
        raise ConfigError([Problem(str(path), 1, "file", str(flaw))])
    if len(names) > MAX_FILES:
        raise ConfigError([Problem(str(path), 1, "file", f"holds more than {MAX_FILES:,} files: join them")])
    wanted = (name for name in names if name.endswith(".toml") and not name.endswith(".test.toml") and name[0] != ".")
    files = [str(path / name) for name in sorted(wanted, key=os.fsencode)]
    size = sum(map(_size, files))
    if size > MAX_FOLDER_BYTES:
        message = f"holds {size:,} bytes of rules: at most {MAX_FOLDER_BYTES:,} are read"
        raise ConfigError([Problem(str(path), 1, "file", message)])
    return files


def _size(file: str) -> int:
    """Return the bytes of a rule file; 0 for one that is refused when it is opened, with its own problem."""
    try:
        size = Path(file).stat().st_size
    except OSError:
        return 0
    return size if size <= MAX_FILE_BYTES else 0


def notes_on_skipped_files(folder: Path) -> list[Problem]:
    """Return a note for each entry of `folder` that is no rule file and looks as if it were meant as one.

    Hidden files, rule tests, texts, and leftovers of editors and package managers are left out on purpose: no note.
    """
    try:
        names = sorted(entry.name for entry in islice(folder.iterdir(), MAX_FILES))
    except OSError:  # a file, or reported where the folder is read
        return []
    notes = []
    for name in names:
        path = folder / name
        if name.endswith(".toml") or _MEANT_TO_BE_SKIPPED.search(name):
            continue
        if os.path.isdir(path):  # noqa: PTH112 - Path's raises without permission
            notes.append(Problem(str(path), 1, "file", "not read: folders in the folder of the rules are passed over"))
        else:
            notes.append(Problem(str(path), 1, "file", "not read: only files whose name ends in .toml are"))
    return notes


def read_rules(document: Document, environment: RuleEnvironment) -> tuple[Rule, ...]:
    """Return the rules of one file that are enabled, and the shipped ones that it changes.

    Problems are noted in `document`, also those of rules with `enabled = false`.
    """
    environment.lists.read(document)
    tables = document.root.tables("rule")
    overrides = document.root.tables("override")
    data = document.root.data
    found = [key for key in SETTINGS_TABLES if key in data and not (key == "rules" and isinstance(data[key], list))]
    if found and not (tables or overrides):
        remedy = "give it by --config, and keep it out of the folder of the rules"
        document.root.add_problem(found[0], f"this is a settings file: {remedy}")
        for key in found[1:]:
            document.root.value(key)  # one problem is enough
    elif not (tables or overrides or "lists" in document.root) and not document.problems:
        document.root.add_note("rule", "this file holds no rules")
    count = environment.count_rules(len(tables) + len(overrides))
    if count > MAX_RULES:
        if count - len(tables) - len(overrides) <= MAX_RULES:  # one problem is enough
            document.root.add_problem("rule", f"more than {MAX_RULES:,} rules in all files: join some by `by`")
        return ()
    changed = [(each, table) for each in overrides if (table := environment.overrides.read(each)) is not None]
    rules = tuple(read_rule(table, environment) for table in (*tables, *(table for _, table in changed)))
    is_shipped = Path(document.file).parent == Path(plain_path(str(shipped_rules_folder())))
    origin = RuleOrigin.SHIPPED if is_shipped else RuleOrigin.OWN
    environment.sources.update((str(table.data.get("id")), table_source(table, origin)) for table in tables)
    environment.sources.update((str(each.data.get("id")), environment.overrides.source_of(each)) for each, _ in changed)
    document.root.reject_unknown_keys()
    return tuple(rule for rule in rules if rule.is_enabled)
