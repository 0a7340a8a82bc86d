"""A real Prometheus scrapes the daemon under a mixed load: its counts, `sample`'s and the load's own must be equal.

Root. Options: `--seconds` of the load (default 300); `--names`, process names after it (default 10000);
`--picture FILE`, to draw the panels of the dashboard. Exit code 1 when a count differs, or a bound is exceeded.
"""

import argparse
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "peers"))

from bpf_links import links_of  # noqa: E402
from hidden_events import count_hidden_events  # noqa: E402
from panel_picture import PanelPicture  # noqa: E402
from ports import free_port  # noqa: E402

from counted_load import REQUEST, RESPONSE  # noqa: E402
from prometheus_server import PrometheusServer  # noqa: E402
from watchdog.config.permissions import ACCOUNT  # noqa: E402

COMMAND = Path(sys.executable).with_name("bpf-watchdog")
LOADS = {"soak-load-1": 2_000, "soak-load-2": 500, "soak-load-3": 50}  # connections a second
SMALL_LOAD = "soak-load-4"  # with UDP, and queues
COUNTS = ("connects", "accepts", "connect_failures", "resets_sent", "bytes_sent", "bytes_received")
MAX_SERIES, OWN_SERIES = 200, 600
PATIENCE_SECONDS = 120
SETTLE_SECONDS = 5
SCRAPE_INTERVAL = "5s"  # which bounds the time of a scrape too
TIME_FOR_NAMES = 120  # of `sample`, after the load
RULES = """
[[rule]]
id = "soak-crowd"
summary = "{process} connects {value} times a second"
metric = "connects"
stat = "rate"
window = "5s"
by = ["process"]
fire_above = 300
[[rule]]
id = "soak-responses"
summary = "{value}"
metric = "response_latency"
stat = "max"
window = "10s"
by = ["process"]
fire_above = 1000
[[rule]]
id = "soak-datagrams"
summary = "{value}"
metric = "udp_bytes_sent"
stat = "sum"
window = "10s"
by = ["process"]
fire_above = 1e12
"""


def main():
    """Run the soak; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--names", type=int, default=10_000)
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    running = []
    with tempfile.TemporaryDirectory(prefix="bpf-watchdog-soak-") as name, count_hidden_events() as unseen:
        folder = Path(name)
        folder.chmod(0o755)  # the daemon gives up root
        try:
            port = free_port()
            running.append(start_daemon(folder, port))
            prometheus = PrometheusServer(folder, port, SCRAPE_INTERVAL)
            try:
                return soak(args, folder, running, prometheus, unseen)
            finally:
                prometheus.stop()
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait(PATIENCE_SECONDS)


def soak(args, folder, running, prometheus, unseen):
    """Run the loads, compare, and return the exit code."""
    sample = start_sample(folder, args.seconds + SETTLE_SECONDS + TIME_FOR_NAMES)
    running.append(sample)
    wait_for(lambda: prometheus.value("bpf_watchdog_ticks_total"), "the first scrape")
    began = time.time()
    counts = run_loads(folder, running, args.seconds)
    time.sleep(SETTLE_SECONDS)
    prometheus.wait_for_scrape()
    ended = time.time()
    if args.picture:
        args.picture.write_text(PanelPicture(prometheus, began, ended).draw())
    found = {load: {name: prometheus.value(growth(name, f'process="{load}"')) for name in COUNTS} for load in counts}
    good = run_names(args.names, running, prometheus)
    if sample.poll() is not None:
        raise SystemExit("sample ended before the load")
    sample.wait(args.seconds + TIME_FOR_NAMES)
    rows = {row["process"]: row for row in json.loads((folder / "sample.json").read_text())}
    good &= report(counts, found, rows, unseen.count())
    print("no difference" if good else "DIFFERENT from the load, or beyond a bound")
    return 0 if good else 1


def growth(name, labels):
    """Return the query of a count since the start of the daemon, in which each series began with 0."""
    return f"sum(max_over_time(bpf_watchdog_tcp_{name}_total{{{labels}}}[1d]))"


def start_daemon(folder, port):
    """Start the daemon, and return it when it runs."""
    config, log, rules = folder / "watchdog.toml", folder / "log", folder / "rules.d"
    config.write_text(
        f'[web]\nlisten = "127.0.0.1:{port}"\nmax_series = {MAX_SERIES}\nbpf_stats = true\n'
        '[[receiver]]\nname = "log"\ntype = "console"\n'
        f'[[receiver]]\nname = "closed"\ntype = "webhook"\nurl = "http://127.0.0.1:{free_port()}/"\n'
    )
    os.chown(config, 0, pwd.getpwnam(ACCOUNT).pw_gid)
    config.chmod(0o640)
    rules.mkdir(0o755)
    (rules / "soak.toml").write_text(RULES)
    with log.open("wb") as output:
        command = [COMMAND, "run", "--config", config, "--rules", rules, "--state-dir", folder / "state"]
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    wait_for(lambda: "SIGHUP reads the files again" in log.read_text() or daemon.poll() is not None, "the daemon")
    if daemon.poll() is not None:
        raise SystemExit(log.read_text())
    return daemon


def start_sample(folder, seconds):
    """Start `sample`, and return it when it counts."""
    command = [COMMAND, "sample", "--for", f"{seconds}s", "--by", "process", "--where", "process=soak-load-*"]
    with (folder / "sample.json").open("wb") as output:
        sample = subprocess.Popen([*command, "--limit", "0", "--json"], stdout=output)
    wait_for(lambda: sample.poll() is not None or links_of(sample.pid), "the programs of sample")
    time.sleep(SETTLE_SECONDS)
    return sample


def run_loads(folder, running, seconds):
    """Run all loads for some seconds; return their own counts by name."""
    compiled = folder / "load"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-o", compiled, HERE / "load.c"], check=True)
    started = {}
    for name, rate in LOADS.items():
        shutil.copy(compiled, folder / name)
        started[name] = subprocess.Popen([folder / name, str(seconds), str(rate)], stdout=subprocess.PIPE, text=True)
    running.extend(started.values())
    small = start_small_load(SMALL_LOAD, running)
    print(f"for {seconds} 100", file=small.stdin, flush=True)
    counts = {name: json.loads(load.communicate()[0]) for name, load in started.items()}
    return {**counts, SMALL_LOAD: json.loads(small.stdout.readline())}


def start_small_load(name, running):
    """Start a process of counted_load.py."""
    command = [sys.executable, HERE.parent / "peers/counted_load.py", name]
    running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    return running[-1]


def run_names(names, running, prometheus):
    """Run a process with many names; print its sums and the bounds, return whether all are right."""
    load = start_small_load("soak-name", running)
    labels = 'process=~"soak-name.*|[(]other[)]"'
    expected = {"connects": names, "bytes_sent": names * (REQUEST + RESPONSE)}
    before = {name: prometheus.value(growth(name, labels)) or 0 for name in expected}
    print(f"names {names}", file=load.stdin, flush=True)
    load.stdout.readline()
    time.sleep(SETTLE_SECONDS)
    prometheus.wait_for_scrape()
    print(f"| {names:,} names | load | Prometheus, (other) included | difference |\n|---|---|---|---|")
    good = True
    for name, number in expected.items():
        found = prometheus.value(growth(name, labels)) - before[name]
        print(f"| {name} | {number:,} | {found:,.0f} | {found - number:,.0f} |")
        good &= 0 <= found - number <= number / 100  # another new process of the host is in (other) too
    pairs = prometheus.value("max_over_time(bpf_watchdog_process_series[1d])")
    series = prometheus.value("max_over_time(scrape_samples_scraped[1d])")
    bound = MAX_SERIES * 120 + OWN_SERIES
    print(f"\npairs with series: {pairs:.0f} of {MAX_SERIES}; series: {series:,.0f}, bound {bound:,}\n")
    return good and pairs <= MAX_SERIES and series <= bound


def report(counts, found, rows, hidden):
    """Print all counts as a table; return whether they are equal. `hidden`: events invisible to every program."""
    print("| process | count | load | Prometheus | sample |\n|---|---|---|---|---|")
    good = True
    for load, own in counts.items():
        for name in COUNTS:
            number, scraped, sampled = own.get(name, 0), found[load][name] or 0, rows.get(load, {}).get(name, 0)
            # An event that no program sees hides at most one connection, with all its bytes.
            missing = (sys.maxsize if name.startswith("bytes") else hidden) if hidden else 0
            good &= all(-missing <= seen - number <= 0 for seen in (scraped, sampled))
            print(f"| {load} | {name} | {number:,} | {scraped:,.0f} | {sampled:,} |")
    print(f"\nstate transitions that this kernel shows to no program (tests/peers/hidden_events.py): {hidden}")
    return good


def wait_for(condition, awaited):
    """Wait until `condition` holds, for a bounded time."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"timeout: no {awaited}")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
