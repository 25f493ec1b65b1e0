"""Alerts: thresholds, one alert an incident, and delivery to log, callback and a loopback webhook."""

from __future__ import annotations

import json
import threading
import time
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.alerts import AlertMonitor, Thresholds, to_log, to_webhook
from llama_index_presets.monitor.ledger.ledger import Ledger

FEW = Thresholds(min_calls=10)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        yield ledger


def calls(ledger: Ledger, count: int, **fields) -> None:
    for _ in range(count):
        ledger.record(kind="llm", provider="local", model="m", **fields)


def test_one_incident_is_one_alert_and_the_next_is_another(ledger):
    """Errors above the threshold alert once; only after recovery below the hysteresis do they alert again."""
    told = []
    monitor = AlertMonitor(ledger, [told.append], FEW)
    calls(ledger, 18)
    calls(ledger, 2, status="error")
    assert [alert.name for alert in monitor.check()] == ["error_rate"]
    assert monitor.check() == [] == monitor.check()
    calls(ledger, 22)  # 2 of 42: below 5 %, above the 4 % of the hysteresis
    calls(ledger, 1, status="error")
    assert monitor.check() == []
    calls(ledger, 60)
    assert monitor.check() == []
    calls(ledger, 10, status="error")
    assert [alert.name for alert in monitor.check()] == ["error_rate"]
    assert len(told) == 2


def test_slow_calls_alert(ledger):
    """A 95th percentile above 30 s alerts; failed calls do not count as slow."""
    monitor = AlertMonitor(ledger, [lambda alert: None], FEW)
    calls(ledger, 30, latency_ms=100)
    assert monitor.check() == []
    calls(ledger, 30, latency_ms=31_000)
    (alert,) = monitor.check()
    assert alert.name == "latency" and "31.0 s" in alert.message


def test_a_cost_spike_is_measured_against_the_week_before(ledger):
    """A day four times as dear as the mean of the seven before it alerts; twice as dear does not."""
    monitor = AlertMonitor(ledger, [lambda alert: None], FEW)
    for day in range(1, 8):
        at = int((time.time() - day * 86_400 - 3600) * 1e6)
        ledger.record(kind="llm", cost_usd=Decimal(2), timestamp_us=at)
    ledger.record(kind="llm", cost_usd=Decimal(4))
    assert monitor.check() == []
    ledger.record(kind="llm", cost_usd=Decimal(4))
    (alert,) = monitor.check()
    assert (alert.name, alert.value) == ("cost_spike", 4.0)


def test_a_quiet_ledger_says_nothing(ledger):
    """Too few calls, or a first day without a week before it, alert nobody."""
    monitor = AlertMonitor(ledger, [lambda alert: None], FEW)
    calls(ledger, 9, status="error")
    ledger.record(kind="embedding", cost_usd=Decimal(500), status="success")
    assert [alert.name for alert in monitor.check() if alert.name != "error_rate"] == []


def test_the_end_of_an_incident_is_told_when_asked_for(ledger):
    """With tell_resolved a second message says that the incident is over."""
    monitor = AlertMonitor(ledger, [lambda alert: None], FEW, tell_resolved=True)
    calls(ledger, 10, status="error")
    monitor.check()
    calls(ledger, 500)
    assert [alert.resolved for alert in monitor.check()] == [True]


def test_a_webhook_gets_the_alert_as_json_and_a_dead_sink_stops_nobody(ledger, caplog):
    """Sinks are independent: one fails and is logged, the webhook and the log still hear."""
    got: list[dict] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    hook = to_webhook(f"http://127.0.0.1:{server.server_address[1]}/alerts")

    def broken(alert):
        raise RuntimeError("sink is down")

    calls(ledger, 10, status="error")
    AlertMonitor(ledger, [broken, hook, to_log], FEW).check()
    server.shutdown()
    server.server_close()
    assert [alert["name"] for alert in got] == ["error_rate"]
    assert any("100.0% of calls failed" in record.getMessage() for record in caplog.records)
    assert any("could not be delivered" in record.getMessage() for record in caplog.records)


def test_alerts_are_checked_in_the_background(ledger):
    """A started monitor finds an incident by itself."""
    heard = threading.Event()
    monitor = AlertMonitor(ledger, [lambda alert: heard.set()], FEW)
    calls(ledger, 10, status="error")
    monitor.start(every_s=0.05)
    assert heard.wait(20)
    monitor.stop()


def test_impossible_settings_are_refused():
    """Negative thresholds, shares above 1 and webhooks that are no URL are refused."""
    with pytest.raises(SettingsError, match="is not possible"):
        Thresholds(error_rate=2)
    with pytest.raises(SettingsError, match="Expected http"):
        to_webhook("ftp://example.org")


def test_tenants_and_callers_are_judged_each(ledger):
    """One tenant's failures alert though all calls together are fine, once, with its name."""
    told = []
    monitor = AlertMonitor(ledger, [told.append], FEW, tell_resolved=True, by=("tenant", "caller"))
    calls(ledger, 400)
    calls(ledger, 20, tenant="acme", status="error")
    calls(ledger, 20, tenant="globex")
    calls(ledger, 20, tags=("beta", "key:web"), latency_ms=40_000)
    found = [(alert.name, alert.group) for alert in monitor.check()]
    assert found == [("error_rate", "tenant acme"), ("latency", "caller web")]
    assert monitor.check() == [] and told[0].message.startswith("tenant acme: 100.0% of calls failed")
    calls(ledger, 600, tenant="acme")
    over = monitor.check()
    assert [(alert.group, alert.resolved) for alert in over] == [("tenant acme", True)]


def test_a_tenant_that_is_heard_of_no_more_has_recovered(ledger):
    """Its incident ends with the window, so that the next one is told."""
    monitor = AlertMonitor(ledger, [lambda alert: None], FEW, tell_resolved=True, by=("tenant",))
    calls(ledger, 20, tenant="acme", status="error")
    assert {alert.group for alert in monitor.check()} == {"", "tenant acme"}
    over = monitor.check(now=time.time() + 3_600)
    assert {alert.group for alert in over if alert.resolved} == {
        "",
        "tenant acme",
    } and monitor.firing == set()


def test_an_unknown_group_of_alerts_is_refused(ledger):
    """The message lists the groups that there are."""
    with pytest.raises(SettingsError, match="Alerts cannot be by 'colour'. Choose of: tenant, caller"):
        AlertMonitor(ledger, by=("colour",))


def test_alerts_of_many_tenants_do_not_wait_for_a_dead_webhook_each(ledger, caplog):
    """The first that cannot be delivered ends the turn of that sink; the next check tries again."""
    tried, told = [], []

    def dead(alert):
        tried.append(alert)
        raise ConnectionRefusedError("nobody listens")

    monitor = AlertMonitor(ledger, [dead, told.append], Thresholds(min_calls=1), by=["tenant"])
    for tenant in ("a", "b", "c"):
        ledger.record(kind="llm", status="error", tenant=tenant)
    assert len(monitor.check()) == len(told) == 1 + 3 and len(tried) == 1
    assert "3 more alerts were not sent" in caplog.text
    ledger.record(kind="llm", status="error", tenant="d")
    monitor.check()
    assert len(tried) == 2


def test_a_threshold_that_is_no_number_is_refused():
    """With nan nothing is ever above it."""
    with pytest.raises(SettingsError, match="is not possible"):
        Thresholds(latency_s=float("nan"))
