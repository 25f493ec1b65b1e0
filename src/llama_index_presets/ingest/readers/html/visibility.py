"""Visibility of text in HTML: what styles hide from a reader of the page, by attributes and by the page's own sheet.

Hidden text is where instructions to a language model are planted. Hidden are ``display: none``, ``visibility: hidden``,
no or nearly no opacity or size, a place off the screen, a clip to nothing, and letters in the colour of what is behind
them. Sheets in files of their own are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from llama_index_presets.errors import IngestError

__all__ = [
    "MARGINS",
    "Rgb",
    "check_selectors",
    "colours",
    "hidden_by_sheet",
    "is_hiding",
    "is_menu",
    "is_same",
    "names_menu",
    "selected",
    "sheet_rules",
]

Rgb = tuple[int, int, int]

_HIDING: Final = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|content-visibility\s*:\s*hidden"
    r"|opacity\s*:\s*(?:0?\.0\d*|0+%?|0\.0+)\s*(?:;|!|$)"
    r"|font-size\s*:\s*(?:0*(?:\.0\d*)?|0*1(?:\.0*)?(?=px|pt))\s*(?:px|pt|em|rem|%|vw|vh|ex|ch)?\s*(?:;|!|$)"
    r"|font\s*:[^;]*\b0(?:px|pt|em|rem)?(?=[\s/])"
    r"|text-indent\s*:\s*-\d{3,}"
    r"|(?:left|right|top|bottom|margin-(?:left|top|right|bottom))\s*:\s*-\d{3,}(?:\.\d+)?\s*(?:px|pt|em|rem|vw|vh|%)?"
    r"|transform\s*:[^;]*(?:scale(?:3d|[xy])?\(\s*0*(?:\.0+)?\s*[,)]|translate(?:[xy]|3d)?\(\s*-\d{4,})"
    r"|clip\s*:\s*rect\(\s*(?:0|1)(?:px)?\s*[, ]\s*(?:0|1)(?:px)?\s*[, ]\s*(?:0|1)(?:px)?\s*[, ]\s*(?:0|1)(?:px)?\s*\)"
    r"|clip-path\s*:\s*(?:inset\(\s*(?:[5-9]\d|100)%|circle\(\s*0|polygon\(\s*(?:0(?:px|%)?\s*,?\s*)+\)))",
    re.IGNORECASE,
)
_TINY: Final = re.compile(
    r"(?:^|;)\s*(?:max-)?(?:height|width)\s*:\s*[01](?:px|pt|em|%)?\s*(?:;|!|$)", re.IGNORECASE
)
_CUT: Final = re.compile(r"(?:^|;)\s*overflow(?:-[xy])?\s*:\s*(?:hidden|clip)", re.IGNORECASE)
_COLOUR: Final = re.compile(r"(?:^|;)\s*(?:color|-webkit-text-fill-color)\s*:\s*([^;!]+)", re.IGNORECASE)
_BACKGROUND: Final = re.compile(r"(?:^|;)\s*background(?:-color)?\s*:\s*([^;!]+)", re.IGNORECASE)
_NAMES: Final[dict[str, Rgb]] = {
    "white": (255, 255, 255), "snow": (255, 250, 250), "ivory": (255, 255, 240), "ghostwhite": (248, 248, 255),
    "whitesmoke": (245, 245, 245), "floralwhite": (255, 250, 240), "azure": (240, 255, 255), "black": (0, 0, 0),
    "red": (255, 0, 0), "yellow": (255, 255, 0), "blue": (0, 0, 255), "green": (0, 128, 0), "gray": (128, 128, 128),
    "grey": (128, 128, 128), "navy": (0, 0, 128), "silver": (192, 192, 192), "lightyellow": (255, 255, 224),
}  # fmt: skip
_HEX: Final = re.compile(r"#([0-9a-f]{3,8})\b", re.IGNORECASE)
_FUNCTION: Final = re.compile(
    r"rgba?\(\s*(\d+)[\s,]+(\d+)[\s,]+(\d+)(?:[\s,/]+([\d.]+%?))?\s*\)", re.IGNORECASE
)
_RULE: Final = re.compile(r"(?:\A|(?<=[{}@]))([^{}@]++)\{([^{}]*+)\}")
MARGINS: Final = frozenset(("header", "footer", "aside"))
_MENU_ROLES: Final = frozenset(
    ("navigation", "search", "menu", "menubar", "tablist", "toolbar", "dialog", "alertdialog")
)
_MENU_NAME: Final = re.compile(
    r"(?:^|[-_\s])(?:nav|navbar|navigation|menu|breadcrumbs?|sidebar|footer|pagination|pager|share|social|cookies?|toc)"
    r"(?:$|[-_\s])",
    re.IGNORECASE,
)
_COMMENT: Final = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
_CONDITIONAL: Final = re.compile(
    r"@(?:media|supports|container|keyframes|-webkit-keyframes)[^{}@]*\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}"
)
_NEAR: Final = 24  # of 765: the sum of the differences of red, green and blue
_MOST_RULES: Final = 500  # of a sheet
_FEW_SELECTORS: Final = 50
_MOST_COMPARED: Final = 20_000_000  # pairs of a selector and an element, some 2 s
_SELECTOR: Final = re.compile(r"(?:[^,\[(]++|\[[^\]]*+\]?+|\([^)]*+\)?+)++")

TRANSPARENT: Final[Rgb] = (-1, -1, -1)


def is_hiding(style: str) -> bool:
    """Whether declarations hide what they are for.

    Example:
        >>> is_hiding("color: red; display:none"), is_hiding("font-size: 0.9em"), is_hiding("font-size:0")
        (True, False, True)
    """
    return bool(_HIDING.search(style) or (_TINY.search(style) and _CUT.search(style)))


def colours(style: str, attributes: Any = None) -> tuple[Rgb | None, Rgb | None]:
    """Colour of the letters and of what is behind them, as declared; None where nothing is.

    Example:
        >>> colours("color:#fff; background: white url(x.png)")
        ((255, 255, 255), (255, 255, 255))
    """
    letters, behind = _COLOUR.search(style), _BACKGROUND.search(style)
    attributes = attributes or {}
    return (
        _read(letters[1] if letters else attributes.get("color") or ""),
        _read(behind[1] if behind else attributes.get("bgcolor") or ""),
    )


def is_same(letters: Rgb | None, behind: Rgb) -> bool:
    """Whether letters of this colour cannot be seen: transparent, or as what is behind them."""
    if letters is None:
        return False
    return letters == TRANSPARENT or sum(abs(a - b) for a, b in zip(letters, behind, strict=True)) <= _NEAR


def _read(text: str) -> Rgb | None:
    text = text.strip().lower()
    if text == "transparent":
        return TRANSPARENT
    if found := _FUNCTION.search(text):
        if found[4] and float(found[4].rstrip("%")) < 0.05:
            return TRANSPARENT
        return int(found[1]), int(found[2]), int(found[3])
    if found := _HEX.search(text):
        digits = found[1] if len(found[1]) > 4 else "".join(digit * 2 for digit in found[1])
        if len(digits) == 8 and digits[6:] == "00":
            return TRANSPARENT
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:6], 16) if len(digits) >= 6 else 0
    return next((_NAMES[word] for word in re.findall(r"[a-z]+", text) if word in _NAMES), None)


def hidden_by_sheet(parser: Any) -> set[int]:
    """Ids of the nodes that the page's own style sheets hide; rules for print or other media do not count.

    Raises:
        IngestError: It would take minutes.
    """
    hiding: dict[str, None] = {}
    for selectors, style in sheet_rules(parser):
        letters, behind = colours(style)
        if is_hiding(style) or (behind is not None and is_same(letters, behind)):
            hiding |= dict.fromkeys(selectors)
    check_selectors(parser, len(hiding))
    return set().union(*(selected(parser, selector) for selector in hiding))


def sheet_rules(parser: Any) -> Iterator[tuple[list[str], str]]:
    """Selectors and declarations of the page's own style sheets; rules for print or other media are left out."""
    for sheet in parser.css("style"):
        rules = _CONDITIONAL.sub("", _COMMENT.sub("", sheet.text(deep=True) or ""))
        for selectors, style in _RULE.findall(rules)[:_MOST_RULES]:
            yield [one.strip() for one in _SELECTOR.findall(selectors)], style


def check_selectors(parser: Any, count: int) -> None:
    """Refuse a page with so many selectors and elements that comparing them would take minutes.

    Raises:
        IngestError: It has.
    """
    if count > _FEW_SELECTORS and count * (elements := len(parser.css("*"))) > _MOST_COMPARED:
        raise IngestError(
            f"The style sheets of the page have {count:,} selectors for {elements:,} elements. Save its text, or take "
            "them out of it."
        )


def selected(parser: Any, selector: str, *, tag: str = "") -> set[int]:
    """Ids of the nodes that a selector names, with `tag` those of that tag; none for a state such as ``:hover``."""
    if ":" in selector or not selector or selector in ("*", "html", "body"):
        return set()  # a state such as :hover, or a page that a script will show
    try:
        return {node.mem_id for node in parser.css(selector) if not tag or node.tag == tag}
    except Exception:  # a selector that the library does not read hides nothing
        return set()


def names_menu(node: Any) -> bool:
    """Whether an element is named as a menu is, or stands in a margin of the page."""
    names = f"{node.attributes.get('class') or ''} {node.attributes.get('id') or ''}"
    return node.tag in MARGINS or bool(_MENU_NAME.search(names))


def is_menu(node: Any) -> bool:
    """Whether it is a menu by its role, or by its name and nothing but links."""
    if node.attributes.get("role") in _MENU_ROLES:
        return True
    if not names_menu(node):
        return False
    links = [len((link.text(deep=True) or "").strip()) for link in node.css("a")]
    return len(links) >= 3 and sum(links) > 0.75 * len(" ".join((node.text(deep=True) or "").split()))
