"""The tables of the state file, as a list of steps from one version to the next.

`PRAGMA user_version` of a file is the number of steps taken. Steps are only ever added at the end; a released one is
never changed. Steps 1 to 4 use the words of their time; step 5 renames tables and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from sqlite3 import Connection

from watchdog.storage.version_5 import convert_documents

APPLICATION_ID = int.from_bytes(b"bpfw", "big")  # PRAGMA application_id: distinguishes our files from others

BALLAST = "ballast"  # a table that exists only while the file takes space from the disk

SchemaStep = tuple[str | Callable[[Connection], None], ...]
"""Statements of SQL, and functions that do more than SQL can."""

_SHUT_LANES = "DELETE FROM lanes WHERE place = OLD.place;"
_OPEN_LANES = """
    INSERT INTO lanes SELECT NEW.receiver, NEW.rule, NEW.place WHERE NEW.state = 'pending' AND NEW.rule != '(digest)'
    UNION SELECT NEW.receiver, json_extract(told.value, '$.rule'), NEW.place
    FROM json_each(CASE WHEN json_valid(NEW.body) THEN NEW.body ELSE '{}' END, '$.alerts') AS told
    WHERE NEW.state = 'pending' AND substr(NEW.rule, 1, 1) IN ('(', '{')
      AND json_type(told.value, '$.rule') = 'text';
"""

_DELETE_ORDERING_KEYS = "DELETE FROM ordering_keys WHERE sequence = OLD.sequence;"
_INSERT_ORDERING_KEYS = """
    INSERT INTO ordering_keys SELECT NEW.receiver, NEW.group_key, NEW.sequence
    WHERE NEW.state = 'pending' AND NEW.group_key != '(digest)'
    UNION SELECT NEW.receiver, json_extract(alert.value, '$.rule'), NEW.sequence
    FROM json_each(CASE WHEN json_valid(NEW.body) THEN NEW.body ELSE '{}' END, '$.alerts') AS alert
    WHERE NEW.state = 'pending' AND substr(NEW.group_key, 1, 1) IN ('(', '{')
      AND json_type(alert.value, '$.rule') = 'text';
"""

SCHEMA_STEPS: tuple[SchemaStep, ...] = (
    (
        # Time of the last write of `part` ("state": alerts and groups; "notices"). CLOCK_BOOTTIME values compare only
        # within one boot; with both clocks they can be shifted to the next boot.
        """
        CREATE TABLE clocks (
            part TEXT PRIMARY KEY,
            boot_id TEXT NOT NULL,
            boot_ns INTEGER NOT NULL,
            wall REAL NOT NULL
        ) STRICT
        """,
        "CREATE TABLE alerts (fingerprint TEXT PRIMARY KEY, state TEXT NOT NULL) STRICT",
        """
        CREATE TABLE groups (
            receiver TEXT NOT NULL,
            rule TEXT NOT NULL,
            state TEXT NOT NULL,
            PRIMARY KEY (receiver, rule)
        ) STRICT
        """,
        # The outbox. `place`: order of creation. `merged`: never sent, a newer one of its group has its alerts.
        # `created_ns`, `due_ns`: CLOCK_BOOTTIME; `ended`: wall clock.
        """
        CREATE TABLE notices (
            place INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            receiver TEXT NOT NULL,
            rule TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('firing', 'resolved')),
            state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'merged', 'dead')),
            attempts INTEGER NOT NULL DEFAULT 0,
            created_ns INTEGER NOT NULL,
            due_ns INTEGER NOT NULL,
            last_error TEXT,
            ended REAL,
            body TEXT NOT NULL -- last: long ones lie on pages of their own, which are read for columns behind them
        ) STRICT
        """,
        "CREATE INDEX notices_pending ON notices (receiver, rule, place) WHERE state = 'pending'",
        "CREATE INDEX notices_ended ON notices (ended) WHERE state != 'pending'",
        """
        CREATE TABLE attempts (
            place INTEGER PRIMARY KEY,
            notice TEXT NOT NULL,
            number INTEGER NOT NULL,
            at REAL NOT NULL,
            result TEXT NOT NULL
        ) STRICT
        """,
    ),
    (
        # Values that receivers need again after a restart; `at`: wall clock of the write.
        """
        CREATE TABLE memories (
            receiver TEXT NOT NULL,
            key TEXT NOT NULL,
            value TEXT NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (receiver, key)
        ) STRICT
        """,
    ),
    (
        # `checksum`: CRC-32 of the text in the row, since SQLite has none; NULL: unchecked. `bytes`: of `body`.
        "ALTER TABLE alerts ADD COLUMN checksum INTEGER",
        "ALTER TABLE groups ADD COLUMN checksum INTEGER",
        """
        CREATE TABLE checked_notices (
            place INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            receiver TEXT NOT NULL,
            rule TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('firing', 'resolved')),
            state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'merged', 'dead')),
            attempts INTEGER NOT NULL DEFAULT 0,
            created_ns INTEGER NOT NULL,
            due_ns INTEGER NOT NULL,
            last_error TEXT,
            ended REAL,
            checksum INTEGER,
            bytes INTEGER GENERATED ALWAYS AS (length(CAST(body AS BLOB))) STORED,
            body TEXT NOT NULL -- last: long ones lie on pages of their own, which are read for columns behind them
        ) STRICT
        """,
        """
        INSERT INTO checked_notices
            (place, id, receiver, rule, status, state, attempts, created_ns, due_ns, last_error, ended, body)
        SELECT place, id, receiver, rule, status, state, attempts, created_ns, due_ns, last_error, ended, body
        FROM notices
        """,
        "DROP TABLE notices",
        "ALTER TABLE checked_notices RENAME TO notices",
        # By group, by age, by expiry: with ten thousand pending rows no query may read all of them.
        "CREATE INDEX notices_pending ON notices (receiver, rule, place, bytes) WHERE state = 'pending'",
        "CREATE INDEX notices_oldest ON notices (receiver, place, due_ns) WHERE state = 'pending'",
        "CREATE INDEX notices_expiring ON notices (receiver, status, created_ns) WHERE state = 'pending'",
        "CREATE INDEX notices_ended ON notices (ended) WHERE state != 'pending'",
        # A body that is changed without a new checksum loses its checksum.
        """
        CREATE TRIGGER notices_altered AFTER UPDATE OF body ON notices WHEN NEW.checksum IS OLD.checksum
        BEGIN UPDATE notices SET checksum = NULL WHERE place = NEW.place; END
        """,
        # The alerts that each receiver got as firing, in a notification that it took, and not yet as resolved.
        """
        CREATE TABLE told (
            receiver TEXT NOT NULL,
            rule TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            alert TEXT NOT NULL,
            PRIMARY KEY (receiver, rule, fingerprint)
        ) STRICT
        """,
        # Notifications lost since the file was created, by cause.
        """
        CREATE TABLE losses (
            receiver TEXT NOT NULL,
            cause TEXT NOT NULL,
            count INTEGER NOT NULL,
            PRIMARY KEY (receiver, cause)
        ) STRICT
        """,
    ),
    (
        # A pending row may not overtake earlier ones that share a lane: its group (a digest has none) and, if that is
        # no rule (such names begin with a bracket), the rules of its alerts. Kept by triggers.
        """
        CREATE TABLE lanes (
            receiver TEXT NOT NULL,
            lane TEXT NOT NULL,
            place INTEGER NOT NULL,
            PRIMARY KEY (receiver, lane, place)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX lanes_place ON lanes (place)",
        "CREATE INDEX notices_in_order ON notices (receiver, place) WHERE state = 'pending'",
        "INSERT INTO lanes SELECT receiver, rule, place FROM notices WHERE state = 'pending'",
        f"CREATE TRIGGER lanes_opened AFTER INSERT ON notices BEGIN {_OPEN_LANES} END",
        f"CREATE TRIGGER lanes_new AFTER UPDATE OF state, rule, body ON notices BEGIN {_SHUT_LANES} {_OPEN_LANES} END",
        f"CREATE TRIGGER lanes_closed AFTER DELETE ON notices BEGIN {_SHUT_LANES} END",
    ),
    (
        "DROP TRIGGER lanes_opened",
        "DROP TRIGGER lanes_new",
        "DROP TRIGGER lanes_closed",
        "DROP TRIGGER notices_altered",
        "DROP TABLE lanes",
        "DROP INDEX notices_pending",
        "DROP INDEX notices_oldest",
        "DROP INDEX notices_expiring",
        "DROP INDEX notices_in_order",
        "ALTER TABLE clocks RENAME COLUMN boot_ns TO boottime_ns",
        "UPDATE clocks SET part = 'notifications' WHERE part = 'notices'",
        "ALTER TABLE memories RENAME TO receiver_state",
        "ALTER TABLE receiver_state RENAME COLUMN at TO updated",
        # The alerts that each receiver was sent as firing, in a notification that it took, and not yet as resolved.
        "ALTER TABLE told RENAME TO notified",
        "ALTER TABLE attempts RENAME COLUMN place TO sequence",
        "ALTER TABLE attempts RENAME COLUMN notice TO notification_id",
        "ALTER TABLE attempts RENAME COLUMN at TO ended",
        # `kind`: an alert of a rule, or the alert about a receiver that is down.
        "ALTER TABLE alerts RENAME TO old_alerts",
        """
        CREATE TABLE alerts (
            fingerprint TEXT PRIMARY KEY,
            kind TEXT NOT NULL CHECK (kind IN ('rule', 'receiver_down')),
            document TEXT NOT NULL,
            checksum INTEGER
        ) STRICT
        """,
        # `kind`: a group of the routing, a group of an escalation target, or the progress of an escalation target
        # (with an empty group key): the alerts that it took over.
        "ALTER TABLE groups RENAME TO old_groups",
        """
        CREATE TABLE groups (
            receiver TEXT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('routed', 'escalation', 'escalation_progress')),
            group_key TEXT NOT NULL,
            document TEXT NOT NULL,
            checksum INTEGER,
            PRIMARY KEY (receiver, kind, group_key)
        ) STRICT
        """,
        # The outbox. `sequence`: order of creation. `merged`: never sent, its alerts are in the notification
        # `merged_into`. `loss_cause`: of `failed` ones. `created_ns`, `due_ns`: CLOCK_BOOTTIME; `ended`: wall clock.
        """
        CREATE TABLE notifications (
            sequence INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            receiver TEXT NOT NULL,
            group_key TEXT NOT NULL,
            reason TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('firing', 'resolved')),
            state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'merged', 'failed')),
            attempts INTEGER NOT NULL DEFAULT 0,
            created_ns INTEGER NOT NULL,
            due_ns INTEGER NOT NULL,
            last_error TEXT,
            loss_cause TEXT,
            merged_into TEXT,
            ended REAL,
            has_evidence INTEGER NOT NULL,
            checksum INTEGER,
            body_bytes INTEGER GENERATED ALWAYS AS (length(CAST(body AS BLOB))) STORED,
            body TEXT NOT NULL -- last: long bodies use overflow pages, which SQLite reads for columns behind them
        ) STRICT
        """,
        # By group, by age, by expiry: with ten thousand pending rows no query may read all of them.
        """
        CREATE INDEX notifications_pending ON notifications (receiver, group_key, sequence, body_bytes)
        WHERE state = 'pending'
        """,
        "CREATE INDEX notifications_oldest ON notifications (receiver, sequence, due_ns) WHERE state = 'pending'",
        "CREATE INDEX notifications_expiring ON notifications (receiver, status, created_ns) WHERE state = 'pending'",
        "CREATE INDEX notifications_ended ON notifications (ended) WHERE state != 'pending'",
        "CREATE INDEX notifications_in_order ON notifications (receiver, sequence) WHERE state = 'pending'",
        # A body that is changed without a new checksum loses its checksum.
        """
        CREATE TRIGGER notifications_body_changed AFTER UPDATE OF body ON notifications
        WHEN NEW.checksum IS OLD.checksum
        BEGIN UPDATE notifications SET checksum = NULL WHERE sequence = NEW.sequence; END
        """,
        # A pending notification may not overtake earlier ones that share an ordering key: its group key (a digest has
        # none) and, where that is no rule (such keys begin with a bracket), the rules of its alerts. Kept by triggers.
        """
        CREATE TABLE ordering_keys (
            receiver TEXT NOT NULL,
            ordering_key TEXT NOT NULL,
            sequence INTEGER NOT NULL,
            PRIMARY KEY (receiver, ordering_key, sequence)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX ordering_keys_sequence ON ordering_keys (sequence)",
        f"CREATE TRIGGER ordering_keys_on_insert AFTER INSERT ON notifications BEGIN {_INSERT_ORDERING_KEYS} END",
        f"""
        CREATE TRIGGER ordering_keys_on_update AFTER UPDATE OF state, group_key, body ON notifications
        BEGIN {_DELETE_ORDERING_KEYS} {_INSERT_ORDERING_KEYS} END
        """,
        f"CREATE TRIGGER ordering_keys_on_delete AFTER DELETE ON notifications BEGIN {_DELETE_ORDERING_KEYS} END",
        convert_documents,
        "DROP TABLE old_alerts",
        "DROP TABLE old_groups",
        "DROP TABLE notices",
        # Notifications lost since the file was created.
        "ALTER TABLE losses RENAME TO old_losses",
        """
        CREATE TABLE losses (
            receiver TEXT NOT NULL,
            cause TEXT NOT NULL
                CHECK (cause IN ('capacity', 'expired', 'refused', 'receiver_removed', 'damaged', 'defect')),
            count INTEGER NOT NULL,
            PRIMARY KEY (receiver, cause)
        ) STRICT
        """,
        "INSERT OR IGNORE INTO losses SELECT receiver, cause, count FROM old_losses",
        "DROP TABLE old_losses",
    ),
    (
        # Attempts whose outcome is unknown, one under way included: the receiver may have the notification.
        "ALTER TABLE notifications ADD COLUMN open_attempts INTEGER NOT NULL DEFAULT 0",
        """
        UPDATE notifications SET open_attempts = 1 WHERE state = 'pending'
          AND attempts > (SELECT count(*) FROM attempts WHERE attempts.notification_id = notifications.id)
        """,
        """
        CREATE INDEX notifications_open ON notifications (receiver, sequence)
        WHERE state = 'pending' AND open_attempts > 0
        """,
    ),
    (
        # Silences and acknowledgements. `ends_ns`: CLOCK_BOOTTIME, NULL without an end. `withheld`: notifications.
        """
        CREATE TABLE silences (
            id TEXT PRIMARY KEY,
            ends_ns INTEGER,
            withheld INTEGER NOT NULL,
            document TEXT NOT NULL,
            checksum INTEGER
        ) STRICT
        """,
    ),
    (
        # What rules learnt of the host. `part`: one of the names that the engine gives; `checksum`: CRC-32.
        """
        CREATE TABLE rule_memories (
            rule TEXT NOT NULL,
            part TEXT NOT NULL,
            checksum INTEGER NOT NULL,
            content BLOB NOT NULL,
            PRIMARY KEY (rule, part)
        ) STRICT
        """,
    ),
    (
        # The secret that the keys of groups in baselines are made with: one row.
        "CREATE TABLE baseline_secret (secret BLOB NOT NULL) STRICT",
        # Learnt baselines: parts of some thousand groups. `digest`: of the definition; `checksum`: CRC-32 of `content`.
        # `saved`: wall clock.
        """
        CREATE TABLE baselines (
            rule TEXT NOT NULL,
            part INTEGER NOT NULL,
            parts INTEGER NOT NULL,
            digest TEXT NOT NULL,
            saved REAL NOT NULL,
            checksum INTEGER NOT NULL,
            content BLOB NOT NULL,
            PRIMARY KEY (rule, part)
        ) STRICT
        """,
    ),
    (
        # Alerts of each rule that began to fire. `hour`: since 1970; `newest`: wall-clock seconds of the newest one.
        """
        CREATE TABLE rule_firings (
            rule TEXT NOT NULL,
            hour INTEGER NOT NULL,
            firings INTEGER NOT NULL,
            newest REAL NOT NULL,
            PRIMARY KEY (rule, hour)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        # Wall-clock seconds of the newest delivery, NULL for one by an older version.
        "ALTER TABLE notified ADD COLUMN delivered REAL",
    ),
)


def apply_step(connection: Connection, step: SchemaStep) -> None:
    """Take `step`, inside the transaction of the caller.

    Raises:
        sqlite3.Error: a statement failed.
    """
    for statement in step:
        if isinstance(statement, str):
            connection.execute(statement)
        else:
            statement(connection)
