"""The tables of the state file, as a list of steps from one version to the next.

`PRAGMA user_version` of a file is the number of steps taken. Steps are only ever added at the end; a released one is
never changed.
"""

from __future__ import annotations

APPLICATION_ID = int.from_bytes(b"bpfw", "big")  # PRAGMA application_id: tells our files from others

BALLAST = "ballast"  # a table that is there only while room is taken from the disk

_SHUT_LANES = "DELETE FROM lanes WHERE place = OLD.place;"
_OPEN_LANES = """
    INSERT INTO lanes SELECT NEW.receiver, NEW.rule, NEW.place WHERE NEW.state = 'pending' AND NEW.rule != '(digest)'
    UNION SELECT NEW.receiver, json_extract(told.value, '$.rule'), NEW.place
    FROM json_each(CASE WHEN json_valid(NEW.body) THEN NEW.body ELSE '{}' END, '$.alerts') AS told
    WHERE NEW.state = 'pending' AND substr(NEW.rule, 1, 1) IN ('(', '{')
      AND json_type(told.value, '$.rule') = 'text';
"""

SCHEMA_STEPS: tuple[tuple[str, ...], ...] = (
    (
        # When `part` ("state": alerts and groups; "notices") was last written: CLOCK_BOOTTIME values compare only
        # within one boot, so a pair of both clocks is kept to carry them over to the next.
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
        # The outbox. `place` is the order of creation; `merged` notices were never sent, a newer one of their group
        # tells the same and more. `created_ns`, `due_ns`: CLOCK_BOOTTIME; `ended`: wall clock.
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
        # What receivers have to know again after a restart; `at`: wall clock when it was written.
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
        # `checksum`: CRC-32 of the text beside it, for SQLite itself has none; NULL is not checked. `bytes`: of `body`.
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
        # By group, by age, by what expires: with ten thousand that wait, no question may have to look at all of them.
        "CREATE INDEX notices_pending ON notices (receiver, rule, place, bytes) WHERE state = 'pending'",
        "CREATE INDEX notices_oldest ON notices (receiver, place, due_ns) WHERE state = 'pending'",
        "CREATE INDEX notices_expiring ON notices (receiver, status, created_ns) WHERE state = 'pending'",
        "CREATE INDEX notices_ended ON notices (ended) WHERE state != 'pending'",
        # Who alters a body without saying what its checksum is now, leaves it without.
        """
        CREATE TRIGGER notices_altered AFTER UPDATE OF body ON notices WHEN NEW.checksum IS OLD.checksum
        BEGIN UPDATE notices SET checksum = NULL WHERE place = NEW.place; END
        """,
        # The alerts that each receiver was told to fire, by a notice that it took, and was not told the end of.
        """
        CREATE TABLE told (
            receiver TEXT NOT NULL,
            rule TEXT NOT NULL,
            fingerprint TEXT NOT NULL,
            alert TEXT NOT NULL,
            PRIMARY KEY (receiver, rule, fingerprint)
        ) STRICT
        """,
        # Notices given up since the file was begun, by cause.
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
        # A pending notice may not overtake earlier ones that share a lane. Its group is one (a digest is none); where
        # that is no rule (such names begin with a bracket), so are the rules of its alerts. Kept by triggers, so that
        # whoever writes notices need not think of it.
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
)
