"""Quoted history of a mail: what the sender wrote, apart from the messages that stand below it."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["split_history"]

_INTRODUCTION: Final = re.compile(
    r"^\W{0,3}(?:On\b.{4,200}\bwrote|Am\b.{4,200}\bschrieb.{0,80}|Le\b.{4,200}\ba écrit"
    r"|El\b.{4,200}\bescribió|Il\b.{4,200}\bha"
    r" scritto"
    r"|Em\b.{4,200}\bescreveu|Op\b.{4,200}\bschreef.{0,80}|Den\b.{4,200}\bskrev.{0,80}|W dniu\b.{4,200}\bnapisał.{0,40}"
    r"|.{4,200}\b(?:пишет|написал\(?а?\)?)|.{4,120}(?:写道|寫道|のメール))\s*[:：]\s*$",
    re.IGNORECASE,
)
_SEPARATOR: Final = re.compile(
    r"^\W{0,2}[-_–—]{2,}\s*(?:Original Message|Forwarded message|Original-Nachricht|Ursprüngliche Nachricht"
    r"|Weitergeleitete Nachricht|Message d'origine|Message transféré|Mensaje original|Mensaje reenviado"
    r"|Messaggio originale|Mensagem original|Oorspronkelijk bericht|Исходное сообщение|Пересылаемое сообщение"
    r"|Begin forwarded message)\s*[-_–—]*:?\s*$|^Begin forwarded message:\s*$",
    re.IGNORECASE,
)
_FROM: Final = re.compile(
    r"^\W{0,2}(?:From|Von|De|Da|Van|От|Från|Od|发件人|差出人)\s*[:：]\s*\S", re.IGNORECASE
)
_SENT: Final = re.compile(
    r"^\W{0,2}(?:Sent|Date|Gesendet|Datum|Envoyé|Enviado(?: el)?|Fecha|Inviato|Data|Verzonden|Отправлено|Дата|Skickat"
    r"|Wysłano|发送时间|日期|送信日時)\s*[:：]\s*\S",
    re.IGNORECASE,
)
_QUOTE: Final = re.compile(r"^\s{0,3}>[> ]*")
_LOOK_BACK: Final = 4  # lines over which an introduction may be broken


def split_history(body: str) -> tuple[str, str]:
    """The text of a mail and the messages quoted in it; the latter without the marks of quotation.

    A quotation that is answered line by line stays where it is.

    Example:
        >>> split_history("Yes.\\n\\nOn 3 May 2024, Ada wrote:\\n> Shall we meet?\\n")
        ('Yes.', 'On 3 May 2024, Ada wrote:\\nShall we meet?')
    """
    lines = body.split("\n")
    start = _history_start(lines)
    above, below = lines[:start], lines[start:]
    blocks = _quoted_blocks(above)
    if not below and len(blocks) == 1:  # the answer stands below what it quotes
        first, last = blocks[0]
        introduced = first > 0 and _introduces(above, first - 1)
        head = introduced[0] if introduced else first
        rest = [*above[:head], *above[last:]]
        if "".join(rest).strip():
            return _joined(rest), _unquoted(above[head:last])
    return _joined(above), _unquoted(below)


def _history_start(lines: list[str]) -> int:
    """First line of what is quoted down to the end; the number of lines where nothing is."""
    marked = [bool(_QUOTE.match(line)) for line in lines]
    filled = [place for place, line in enumerate(lines) if line.strip()]
    last_own = max((place for place in filled if not marked[place]), default=-1)
    last_marked = max((place for place in filled if marked[place]), default=-1)
    for place in filled:
        line = lines[place]
        if _SEPARATOR.match(line):
            return place
        if place == filled[0]:
            continue
        if _is_header_block(lines, place):
            return place
        rest_is_quoted = place >= last_own or place >= last_marked  # all with marks, or none as of HTML
        if rest_is_quoted and place < filled[-1] and (span := _introduces(lines, place)):
            return span[0]
        if marked[place] and place > last_own:
            return place
    return len(lines)


def _introduces(lines: list[str], place: int) -> tuple[int, int] | None:
    """First and last line of an introduction such as ``On … wrote:`` that ends here, blank lines above skipped."""
    while place >= 0 and not lines[place].strip():
        place -= 1
    for first in range(place, max(place - _LOOK_BACK, -1), -1):
        if _INTRODUCTION.match(" ".join(line.strip() for line in lines[first : place + 1])):
            return first, place
    return None


def _is_header_block(lines: list[str], place: int) -> bool:
    """``From: …`` with ``Sent: …`` within the next lines, as Outlook writes above what is quoted."""
    near = lines[place + 1 : place + 6]
    return bool(_FROM.match(lines[place])) and any(map(_SENT.match, near))


def _quoted_blocks(lines: list[str]) -> list[tuple[int, int]]:
    blocks: list[tuple[int, int]] = []
    for place, line in enumerate(lines):
        if not _QUOTE.match(line):
            continue
        if blocks and not "".join(lines[blocks[-1][1] : place]).strip():
            blocks[-1] = (blocks[-1][0], place + 1)
        else:
            blocks.append((place, place + 1))
    return blocks


def _unquoted(lines: list[str]) -> str:
    return _joined([_QUOTE.sub("", line) for line in lines])


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).strip("\n ")
