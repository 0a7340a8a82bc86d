"""Every type of receiver shows the dashboard, the labels of the user's own and the host, also in `notify test`."""

import tomllib

import pytest

from watchdog.alerts.identity import HostIdentity
from watchdog.config.document import Document
from watchdog.config.settings import read_settings
from watchdog.receivers.registry import RECEIVER_TYPES, build_receivers
from watchdog.receivers.render.example import example_notifications

URL = "https://grafana.example.net/d?h=web-1"
KEYS = {
    "alertmanager": 'urls = ["http://127.0.0.1:1"]',
    "apprise": 'urls = "json://127.0.0.1:1"',
    "command": 'command = ["/bin/cat"]',
    "email": 'host = "127.0.0.1"\ntls = "none"\nfrom = "a@example.net"\nto = ["b@example.net"]',
    "pagerduty": 'routing_key = "0123456789abcdef0123456789abcdef"',
    "slack": 'webhook_url = "https://hooks.slack.com/services/T0/B0/abcdefgh12345678"',
    "webhook": 'url = "http://127.0.0.1:1/"',
}


@pytest.mark.parametrize("kind", RECEIVER_TYPES)
def test_receiver_has_dashboard_labels_and_host(kind):
    text = f'[[receiver]]\nname = "r"\ntype = "{kind}"\n{KEYS.get(kind, "")}\n'
    receiver = build_receivers(read_settings(Document(text, tomllib.loads(text), "watchdog.toml")))["r"]
    identity = HostIdentity.of("web-1", "m", (("team", "storage-team"),), (), URL.replace("web-1", "{host}"))
    try:
        for notification in example_notifications("r", identity):
            body = receiver.render(notification).decode("utf-8", "replace").replace("=\n", "").replace("=3D", "=")
            assert "storage-team" in body
            assert "web-1" in body
            assert "grafana.example.net/d?h=web-1" in body
    finally:
        receiver.close()
