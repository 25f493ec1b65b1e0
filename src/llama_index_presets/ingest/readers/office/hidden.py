"""Hidden letters of a Word document: marked as hidden, white on the white page, or too small to be seen.

Such text is where instructions to a language model are planted. White letters are left alone where something may be
behind them: in a table or a text box, in a paragraph with a shade, on a coloured page, over a drawing behind the text.
"""

from __future__ import annotations

import re
import zipfile
from typing import Any, Final

from llama_index_presets.ingest.readers.office.packages import attribute, child_of, local_name, parse_xml

__all__ = ["HiddenText"]

_PART: Final = re.compile(r"word/(?:document|footnotes|endnotes|comments|header\d*|footer\d*)\.xml")
_STYLES: Final = "word/styles.xml"
_MARKS: Final = re.compile(
    rb"""vanish\b|color [^>]*val=["']F[0-9A-F]F[0-9A-F]F|sz [^>]*val=["'][0-2]["']""", re.I
)
_BEHIND: Final = re.compile(rb"""behindDoc=["'](?:1|true)|<\w+:background\b|z-index:-""")
_WHITE: Final = re.compile(r"(?:F[7-9A-F]){3}", re.I)
_LETTERS: Final = ("t", "tab", "br", "cr", "sym", "noBreakHyphen")
_OFF: Final = ("0", "false", "off", "none")
_TINY: Final = 2  # half points


class HiddenText:
    """Takes hidden letters out of the parts of a document.

    Args:
        archive: The document.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        names = archive.namelist()
        self.parts = [name for name in names if _PART.fullmatch(name)]
        styles = parse_xml(archive.read(_STYLES)) if _STYLES in names else []
        self._styles = {
            attribute(style, "styleId"): style for style in styles if local_name(style.tag) == "style"
        }
        self._white = not any(_BEHIND.search(archive.read(name)) for name in self.parts)
        self._in_styles = _STYLES in names and _MARKS.search(archive.read(_STYLES)) is not None

    def may_be_in(self, part: bytes) -> bool:
        """Whether a part has to be looked through."""
        return self._in_styles or _MARKS.search(part) is not None

    def clear(self, root: Any) -> None:
        """Remove the letters of hidden runs from a part; fields and notes of these runs stay."""
        for run in root.iter():
            if local_name(run.tag) == "r" and self._is_hidden(run):
                for piece in [one for one in run if local_name(one.tag) in _LETTERS]:
                    run.remove(piece)

    def _is_hidden(self, run: Any) -> bool:
        above = list(run.iterancestors())
        paragraph = next((one for one in above if local_name(one.tag) == "p"), None)
        own, of_paragraph = child_of(run, "rPr"), child_of(paragraph, "pPr")
        layers = [own, *self._of_style(own, "rStyle"), *self._of_style(of_paragraph, "pStyle")]
        vanish, size, colour = (_first(layers, name) for name in ("vanish", "sz", "color"))
        if vanish is not None and attribute(vanish) not in _OFF:
            return True
        if size is not None and attribute(size).isdecimal() and int(attribute(size)) <= _TINY:
            return True
        if colour is None or not _WHITE.fullmatch(attribute(colour)) or not self._white:
            return False
        shaded = _first([*layers, of_paragraph, *self._paragraph_layers(of_paragraph)], "shd") is not None
        boxed = any(local_name(one.tag) in ("tbl", "txbxContent", "framePr") for one in above)
        return not shaded and not boxed and _first(layers, "highlight") is None

    def _chain(self, properties: Any, kind: str) -> list[Any]:
        """The style that properties name, and those that it is based on."""
        named, chain = child_of(properties, kind), list[Any]()
        while named is not None and len(chain) < 10:
            style = self._styles.get(attribute(named))
            if style is None:
                break
            chain.append(style)
            named = child_of(style, "basedOn")
        return chain

    def _of_style(self, properties: Any, kind: str) -> list[Any]:
        return [child_of(style, "rPr") for style in self._chain(properties, kind)]

    def _paragraph_layers(self, properties: Any) -> list[Any]:
        return [child_of(style, "pPr") for style in self._chain(properties, "pStyle")]


def _first(layers: list[Any], name: str) -> Any:
    """The property of the nearest layer that has it."""
    return next((found for layer in layers if (found := child_of(layer, name)) is not None), None)
