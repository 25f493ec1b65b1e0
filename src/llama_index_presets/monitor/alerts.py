"""Alerts on the ledger: error rate, latency, cost against the trailing week; one alert per incident.

An alert fires when its value goes above its threshold and is silent until the value has come back below the
threshold less the hysteresis; then it may fire again. Needs no LlamaIndex.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.error import HTTPError

from llama_index_presets.errors import SettingsError
from llama_index_presets.monitor.ledger.ledger import Ledger
from llama_index_presets.monitor.ledger.queries import BILLABLE

__all__ = ["Alert", "AlertMonitor", "Thresholds", "to_log", "to_webhook"]

_log = logging.getLogger(__name__)
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When to alert.

    Attributes:
        error_rate: Share of calls of the window that failed, in [0, 1].
        latency_s: 95th percentile of the window's call times, in seconds.
        cost_ratio: Cost of the last 24 hours over the mean day of the week before them.
        window_s: Length of the window for errors and latency, in seconds.
        min_calls: Fewer calls in the window say nothing.
        min_cost_usd: A day below this many USD is no spike, whatever the week was.
        hysteresis: Share by which a value must fall below its threshold before it may fire again, in [0, 1).
    """

    error_rate: float = 0.05
    latency_s: float = 30.0
    cost_ratio: float = 3.0
    window_s: float = 900.0
    min_calls: int = 20
    min_cost_usd: float = 1.0
    hysteresis: float = 0.2

    def __post_init__(self) -> None:
        wrong = [name for name, value in asdict(self).items() if not value >= 0]  # nan is not
        if wrong or not 0 <= self.hysteresis < 1 or self.error_rate > 1:
            raise SettingsError(f"{self} is not possible. Expected values >= 0, shares in [0, 1].")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One incident.

    Attributes:
        name: ``"error_rate"``, ``"latency"`` or ``"cost_spike"``.
        value: What was measured.
        threshold: What it went above.
        message: One sentence for people.
        at: When it was seen, ISO 8601, UTC.
        resolved: Whether this says that the incident is over.
        group: Whose calls they were, as ``"tenant acme"`` or ``"caller web"``; empty for all calls together.
    """

    name: str
    value: float
    threshold: float
    message: str
    at: str
    resolved: bool = False
    group: str = ""


Sink = Callable[[Alert], None]


class AlertMonitor:
    """Alert monitor: evaluates the ledger and sends each incident once, to every sink.

    Args:
        ledger: What is watched; all its processes count.
        sinks: Where alerts go: `to_log`, `to_webhook`, or any function of an `Alert`.
        thresholds: When to alert.
        tell_resolved: Whether sinks also hear that an incident is over.
        by: Groups that are judged by the same thresholds each, beside all calls together: ``"tenant"``, and
            ``"caller"`` of a server (the tag ``key:NAME``).

    Raises:
        SettingsError: There is no such group.

    Example:
        >>> import tempfile
        >>> ledger = Ledger(tempfile.mkdtemp() + "/calls.duckdb")
        >>> alerts = []
        >>> monitor = AlertMonitor(ledger, [alerts.append], Thresholds(min_calls=1))
        >>> _ = ledger.record(kind="llm", status="error")
        >>> [alert.name for alert in monitor.check()], monitor.check()
        (['error_rate'], [])
    """

    def __init__(
        self,
        ledger: Ledger,
        sinks: Sequence[Sink] = (),
        thresholds: Thresholds | None = None,
        *,
        tell_resolved: bool = False,
        by: Sequence[str] = (),
    ) -> None:
        if unknown := sorted(set(by) - _GROUPS.keys()):
            raise SettingsError(f"Alerts cannot be by '{unknown[0]}'. Choose of: {', '.join(_GROUPS)}.")
        self._by = tuple(by)
        self.thresholds = thresholds or Thresholds()
        self.firing: set[str] = set()
        self._ledger = ledger
        self._sinks = tuple(sinks) or (to_log,)
        self._tell_resolved = tell_resolved
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def check(self, now: float | None = None) -> list[Alert]:
        """Evaluate once and deliver what is new.

        Args:
            now: The moment to look from, in seconds since 1970; None means now.

        Returns:
            The alerts that began (and, if asked for, ended) with this check.
        """
        moment = time.time() if now is None else now
        with self._lock:
            alerts = [alert for group in (None, *self._by) for alert in self._judge_group(group, moment)]
        for sink in self._sinks:
            self._deliver(alerts, sink)
        return alerts

    def start(self, every_s: float = 30.0) -> None:
        """Check in the background until `stop`; a fault in a check is logged and does not end it."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._watch, args=(every_s,), daemon=True, name="alerts")
            self._thread.start()

    def stop(self) -> None:
        """End the background checks."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _watch(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            try:
                self.check()
            except Exception:
                _log.exception("An alert check failed; the next one follows in %.0f s.", every_s)

    def _judge_group(self, by: str | None, moment: float) -> list[Alert]:
        """Judge all calls, or each tenant or caller; one that is heard of no more has recovered."""
        findings = _findings(self._ledger, self.thresholds, moment, by)
        seen = {(one.name, one.group) for one in findings}
        for key in sorted(self.firing):
            name, _, group = key.partition(" of ")
            if group.split(" ")[0] == (by or "") and (name, group) not in seen:
                findings.append(_Finding(name, group, None, 0.0, ""))
        return [alert for one in findings for alert in self._judge(one)]

    def _judge(self, found: _Finding) -> list[Alert]:
        low = found.threshold * (1 - self.thresholds.hysteresis)
        key = f"{found.name} of {found.group}" if found.group else found.name
        value, threshold = found.value, found.threshold
        alert = Alert(
            name=found.name,
            value=value or 0.0,
            threshold=threshold,
            message=f"{found.group}: {found.text}" if found.group else found.text,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            group=found.group,
        )
        if value is not None and value > threshold and key not in self.firing:
            self.firing.add(key)
            return [alert]
        if key in self.firing and (value is None or value <= low):
            self.firing.discard(key)
            return [replace(alert, message=f"Over: {key}.", resolved=True)] if self._tell_resolved else []
        return []

    def _deliver(self, alerts: Sequence[Alert], sink: Sink) -> None:
        """Send alerts to one sink; where it cannot be reached, the others do not wait for it once each."""
        for place, alert in enumerate(alerts, start=1):
            try:
                sink(alert)
            except Exception as error:
                _log.exception("Alert '%s' could not be delivered to %r.", alert.name, sink)
                left = len(alerts) - place
                if isinstance(error, OSError) and not isinstance(error, HTTPError) and left:
                    _log.error("%d more alerts were not sent to %r: it cannot be reached.", left, sink)
                    return


def to_log(alert: Alert) -> None:
    """Log an alert as a warning, its end as information."""
    _log.log(logging.INFO if alert.resolved else logging.WARNING, "%s", alert.message)


def to_webhook(url: str, *, timeout_s: float = 10.0) -> Sink:
    """Make a sink that posts each alert as JSON.

    Args:
        url: Where to; http or https.
        timeout_s: How long to wait for the answer, in seconds.

    Raises:
        SettingsError: The URL is not http(s).
    """
    if not url.startswith(("http://", "https://")):
        raise SettingsError(f"Webhook '{url}' is no URL. Expected http:// or https://.")

    def post(alert: Alert) -> None:
        body = json.dumps(asdict(alert)).encode()
        request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # nosec B310
            answer.read()

    return post


_GROUPS: Final = {
    "tenant": "tenant",
    "caller": "regexp_extract(array_to_string(tags, chr(10)), '(?m)^key:(.*)$', 1)",
}
"""What alerts can be by -> its SQL; rows where it is empty belong to nobody."""

_WINDOW = """
    SELECT {group}, count(*), avg((status = 'error')::INT),
        quantile_cont(latency_ms, 0.95) FILTER (status = 'success') / 1000
    FROM llm_calls WHERE {billable} AND NOT cache_hit AND timestamp > make_timestamp(?) GROUP BY 1"""
_DAYS = """
    SELECT {group}, coalesce(sum(cost_usd) FILTER (timestamp > make_timestamp($day)), 0)::DOUBLE,
        coalesce(sum(cost_usd) FILTER (timestamp <= make_timestamp($day)), 0)::DOUBLE / 7
    FROM llm_calls WHERE {billable} AND timestamp > make_timestamp($week) GROUP BY 1"""


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a check measured of a group; no value where there is too little to judge."""

    name: str
    group: str
    value: float | None
    threshold: float
    text: str


def _findings(ledger: Ledger, limits: Thresholds, now: float, by: str | None) -> list[_Finding]:
    """Errors, latency and cost of all calls, or of each group that has any."""
    sql = {"group": _GROUPS[by] if by else "'all'", "billable": BILLABLE}
    day = int(now * 1e6) - _DAY_US
    window = ledger.sql(_WINDOW.format(**sql), [int((now - limits.window_s) * 1e6)]).fetchall()
    days = ledger.sql(_DAYS.format(**sql), {"day": day, "week": day - 7 * _DAY_US}).fetchall()
    found: list[_Finding] = []
    for key, calls, errors, latency in window:
        if key:
            few = calls < limits.min_calls
            name = f"{by} {key}" if by else ""
            found += _of_window(name, limits, None if few else errors, None if few else latency)
    return found + [_of_cost(f"{by} {key}" if by else "", limits, *costs) for key, *costs in days if key]


def _of_window(group: str, limits: Thresholds, errors: float | None, latency: float | None) -> list[_Finding]:
    limit = f"threshold {limits.error_rate:.1%}"
    failed = f"{errors or 0:.1%} of calls failed in the last {limits.window_s:.0f} s ({limit})."
    slow = f"One call in twenty took {latency or 0:.1f} s or more (threshold {limits.latency_s:.1f} s)."
    return [
        _Finding("error_rate", group, errors, limits.error_rate, failed),
        _Finding("latency", group, latency, limits.latency_s, slow),
    ]


def _of_cost(group: str, limits: Thresholds, today: float, mean: float) -> _Finding:
    value = today / mean if mean > 0 and today >= limits.min_cost_usd else None
    text = f"The last 24 h cost ${today:.2f}, {value or 0:.1f} times the mean day of the week before (${mean:.2f})."
    return _Finding("cost_spike", group, value, limits.cost_ratio, text)
