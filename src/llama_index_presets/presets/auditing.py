"""The audit log of an engine: one entry for each question that was asked, whatever became of it."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from llama_index.core.schema import MetadataMode, NodeWithScore

from llama_index_presets.monitor.audit import AuditLog
from llama_index_presets.monitor.audit_key import audit_key
from llama_index_presets.presets.storage import Storage

__all__ = ["AuditTrail", "open_audit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditTrail:
    """Writes the entries of one engine.

    Attributes:
        log: The chained log.
        preset: Name of the preset.
        model: Name of what writes the answers.
    """

    log: AuditLog
    preset: str
    model: str

    def record(
        self,
        *,
        who: str,
        query_id: str,
        question: str,
        shown: Sequence[NodeWithScore],
        answer: str,
        cost_usd: Decimal | None,
        status: str,
    ) -> None:
        """Put a question on record and wait until the disk has it.

        Args:
            who: Who asked; empty takes the name that the process runs under.
            query_id: Its id in the ledger.
            question: As it was asked.
            shown: The passages that the model was shown.
            answer: What was answered; as far as it got, where it did not get to its end.
            cost_usd: What it cost, or None when that is not known.
            status: ``"answered"``, ``"abandoned"`` (a stream that nobody read to its end), ``"degraded: STAGE ERROR"``
                (an apology) or ``"failed: ERROR"``.

        Raises:
            AuditError: It cannot be written.
        """
        self.log.append(
            who=who or _login(),
            preset=self.preset,
            model=self.model,
            query_id=query_id,
            prompt=question,
            passages=[(hit.node.node_id, hit.node.get_content(MetadataMode.NONE)) for hit in shown],
            answer=answer,
            cost_usd=cost_usd,
            status=status,
        )


def open_audit(level: str, storage: Storage, *, preset: str, model: str) -> AuditTrail | None:
    """The audit trail of a monitoring level, or None where the level has none.

    Raises:
        SettingsError: The operator's key cannot be read or made.
    """
    if level != "audit":
        return None
    return AuditTrail(log=AuditLog(storage.audit, key=audit_key(make=True)), preset=preset, model=model)


def _login() -> str:
    """The name that the process runs under; in a container without a user there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
