"""Settings and rules that the steps of the system test give to the host."""

STORM_RULE = """\
[[rule]]
id = "system-test-storm"
summary = "{process} opens connections at {value} (limit {threshold})"
metric = "connects"
stat = "rate"
window = "5s"
by = ["process"]
where = { direction = "out", process = "storm" }
fire_above = 5
keep_firing_for = "1h"
"""
SECOND_RULE = STORM_RULE.replace("system-test-storm", "system-test-second")
QUIET_RULE = STORM_RULE.replace("system-test-storm", "system-test-quiet").replace("= 5\n", "= 100000\n")
BROKEN_RULE = QUIET_RULE.replace('"connects"', '"conects"')
SETTINGS = """\
[rules]
shipped = true

[routing]
default = ["oncall", "journal"]
jitter = "0s"
group_interval = "5s"

[[receiver]]
name = "oncall"
type = "webhook"
url_credential = "oncall"

[[receiver]]
name = "journal"
type = "journald"
"""
# Read by versions of old, too. Nobody listens at the second address before the upgrade.
FORMER_SETTINGS = """\
[routing]
default = ["oncall", "late"]
jitter = "0s"
group_interval = "5s"

[[receiver]]
name = "oncall"
type = "webhook"
url = "http://127.0.0.1:8099/"

[[receiver]]
name = "late"
type = "webhook"
url = "http://127.0.0.1:8098/"
"""
# The limits of memory that docs/operations.md names.
MEMORY_LIMITS = """\
[Service]
MemoryHigh=300M
MemoryMax=400M
"""
