"""What was filled into the fields of a PDF form."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

__all__ = ["FilledField", "filled_fields"]

_UNSEEN: Final = 2 | 32  # annotation flags: hidden, not to be viewed
_PASSWORD: Final = 1 << 13  # flag of a text field
_CHECKED: Final = "\u2612"


class FilledField(NamedTuple):
    """A field: its value, and its edges in PDF's own coordinates."""

    text: str
    left: float
    bottom: float
    right: float
    top: float


def filled_fields(raw: Any, page: Any) -> Iterator[FilledField]:
    """Filled fields that the page shows, but for passwords; a box that is ticked is a sign.

    Args:
        raw: The library.
        page: Of pypdfium2, of a document whose forms were initialised.
    """
    if page.formenv is None:
        return
    for place in range(raw.FPDFPage_GetAnnotCount(page.raw)):
        annotation = raw.FPDFPage_GetAnnot(page.raw, place)
        if not annotation:
            continue
        try:
            if raw.FPDFAnnot_GetSubtype(annotation) == raw.FPDF_ANNOT_WIDGET:
                yield from _of_field(raw, page.formenv.raw, annotation)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)


def _of_field(raw: Any, form: Any, annotation: Any) -> Iterator[FilledField]:
    edges = raw.FS_RECTF()
    hidden = raw.FPDFAnnot_GetFlags(annotation) & _UNSEEN
    if not hidden and raw.FPDFAnnot_GetRect(annotation, edges) and (value := _value(raw, form, annotation)):
        yield FilledField(value, edges.left, edges.bottom, edges.right, edges.top)


def _value(raw: Any, form: Any, annotation: Any) -> str:
    kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON):
        return _CHECKED if raw.FPDFAnnot_IsChecked(form, annotation) else ""
    if kind not in (raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX):
        return ""
    if raw.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD:
        return ""
    size = raw.FPDFAnnot_GetFormFieldValue(form, annotation, None, 0)
    buffer = ctypes.create_string_buffer(size + 2)
    raw.FPDFAnnot_GetFormFieldValue(
        form, annotation, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort)), size
    )
    text = buffer.raw[:size].decode("utf-16-le", "replace").rstrip("\0")
    return text.replace("\r\n", "\n").replace("\r", "\n")
