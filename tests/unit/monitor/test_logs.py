"""JSON logs: one object a call, no prompt unless asked for."""

from __future__ import annotations

import json
import logging

import pytest
import structlog
from llama_index.core.llms import MockLLM

from llama_index_presets import CostTrackingHandler, Ledger
from llama_index_presets.errors import MonitorError
from llama_index_presets.monitor.attribution import attributed
from llama_index_presets.monitor.json_log import JsonLog

SECRET = "the patient Jane Doe"


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "calls.duckdb") as ledger:
        yield ledger


def ask(ledger: Ledger) -> None:
    with CostTrackingHandler(ledger).instrument() as handler, attributed(query_id="q7", tenant="acme"):
        MockLLM(max_tokens=2).complete(SECRET)
    handler.close()


def test_a_call_is_one_json_object_with_ids_and_without_its_prompt(ledger, tmp_path):
    """The line joins with the ledger by its ids; the prompt is there only as a keyed hash."""
    log = JsonLog(ledger, to=tmp_path / "calls.log")
    ask(ledger)
    log.close()
    (line,) = (tmp_path / "calls.log").read_text().splitlines()
    fields = json.loads(line)
    assert (fields["query_id"], fields["tenant"], fields["status"]) == ("q7", "acme", "success")
    assert len(fields["prompt_sha256"]) == 64 and SECRET not in line
    assert ledger.sql("SELECT call_id FROM llm_calls").fetchone() == (fields["call_id"],)


def test_prompts_are_logged_only_when_asked_for_and_with_a_warning(ledger, tmp_path, caplog):
    """log_prompts=True writes the prompt in clear, and says so."""
    log = JsonLog(ledger, to=tmp_path / "calls.log", log_prompts=True)
    ask(ledger)
    log.close()
    assert SECRET in json.loads((tmp_path / "calls.log").read_text())["prompt"]
    assert "written in clear" in caplog.text
    assert ledger.prompts == {}


def test_the_standard_logger_and_structlog_get_the_same_fields(ledger, caplog):
    """Both sinks hear of each call once."""
    caplog.set_level(logging.INFO, logger="calls")
    standard = JsonLog(ledger, to=logging.getLogger("calls"))
    with structlog.testing.capture_logs() as captured:
        structured = JsonLog(ledger, to=structlog.get_logger())
        ask(ledger)
        standard.close()
        structured.close()
    (record,) = [record for record in caplog.records if record.name == "calls"]
    (event,) = captured
    assert json.loads(record.getMessage())["call_id"] == event["call_id"]


def test_a_log_that_cannot_be_opened_says_so(ledger, tmp_path):
    """A path that is no file is refused at once."""
    with pytest.raises(MonitorError, match="cannot be opened"):
        JsonLog(ledger, to=tmp_path)
