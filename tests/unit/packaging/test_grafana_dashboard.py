"""The dashboard is the one that its description makes, and Grafana's own models read all of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

FOLDER = Path(__file__).parents[3] / "packaging/grafana"
TEXT = (FOLDER / "bpf-watchdog.json").read_text()
DASHBOARD = json.loads(TEXT)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def decoded(document):
    """Return a document as Grafana's models read it: they drop keys that they do not know."""
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))


def test_the_file_is_made_from_its_description():
    program = "import dashboard, sys; sys.stdout.write(dashboard.build())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=FOLDER)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == TEXT, "run `make dashboard`"


def test_the_models_of_grafana_know_every_key():
    assert decoded(DASHBOARD) == DASHBOARD


@pytest.mark.parametrize("place", ["panel", "target", "variable"])
def test_a_misspelt_key_would_be_found(place):
    document = json.loads(TEXT)
    panel = next(panel for panel in document["panels"] if panel["type"] != "row")
    places = {"panel": panel, "target": panel["targets"][0], "variable": document["templating"]["list"][0]}
    places[place]["legendFromat"] = "x"
    assert decoded(document) != document


def test_each_panel_asks_the_data_source_that_the_user_chooses():
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert all(panel["datasource"] == chosen for panel in PANELS)
    kinds = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert kinds.pop("datasource") == "datasource"
    assert set(kinds.values()) == {"query"}
    used = set(re.findall(r"\$\{?(\w+)", TEXT)) - {"__rate_interval", "__range", "__all", "datasource"}
    assert used == set(kinds) == {"job", "instance", "unit", "process"}


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
