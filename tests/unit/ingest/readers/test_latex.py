"""LaTeX whose definitions stand in the text, and LaTeX that does not close what it opens."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_index_presets.errors import IngestError
from llama_index_presets.ingest.readers.latex import read_latex

HALVES = "".join(
    rf"\newcommand{{\b{name}}}{{\begin{{{name}}}}}"
    "\n"
    rf"\newcommand{{\e{name}}}{{\bbox\end{{{name}}}}}"
    "\n"
    rf"\newenvironment{{my{name}}}[1]{{\begin{{{name}}} \hspace{{-.85em}} {{\bf :}}}}%"
    "\n"
    rf"   {{\end{{{name}}}}}"
    "\n"
    for name in ("lemma", "fact", "remark", "example", "problem", "question", "theorem", "corollary")
)


def read(folder: Path, source: str) -> str:
    path = folder / "paper.tex"
    path.write_text(source)
    return read_latex(path)[0].text


def test_definitions_in_the_text_say_nothing(tmp_path: Path) -> None:
    """Each holds half of an environment; what stands between and behind them is read."""
    body = (
        HALVES + "We count pumps.\n\\def\\half{\\textstyle{1 \\over 2}}\n\\def\\01{\\{0,1\\}}\n\nThey leak."
    )
    text = read(tmp_path, f"\\begin{{document}}\n{body}\n\\end{{document}}")
    assert text.split() == ["We", "count", "pumps.", "They", "leak."]


def test_a_definition_that_is_commented_out_takes_no_text_with_it(tmp_path: Path) -> None:
    """Its brace is closed nowhere."""
    text = read(
        tmp_path,
        "One.\n% \\newcommand{\\x}{ \\begin{center}\nTwo {\\em three}.\n\nFour.",
    )
    for word in ("One.", "Two", "three", "Four."):
        assert word in text


def test_a_word_of_the_authors_own_is_written_out(tmp_path: Path) -> None:
    """The definition goes, and its use stays."""
    text = read(
        tmp_path,
        "\\newcommand{\\prod}{Pumpomat}\\begin{document}\\def\\co{ACME}\nThe \\prod{} of \\co.\\end{document}",
    )
    assert text.strip() == "The Pumpomat of ACME."


@pytest.mark.parametrize("opened", ["\\href{\\begin{a}}{\\end{a}}", "\\caption{\\begin{a} \\textbf{"])
def test_what_is_never_closed_ends_with_an_error(tmp_path: Path, opened: str) -> None:
    """A parser that tries again behind each of them would take for ever."""
    with pytest.raises(IngestError, match="do not end where they should"):
        read(tmp_path, "Text. " + f"{opened} words\n" * 60)


@pytest.mark.parametrize(("deep", "is_read"), [(12, True), (200, False)])
def test_groups_inside_each_other_are_read_to_some_depth(tmp_path: Path, deep: int, is_read: bool) -> None:
    """As deep as a person writes; what is deeper has the same error however deep the reader is called."""
    source = "Top. " + "\\textbf{" * deep + "word" + "}" * deep
    if is_read:
        assert read(tmp_path, source).split() == ["Top.", "word"]
    else:
        with pytest.raises(IngestError, match="do not end where they should"):
            read(tmp_path, source)


def test_items_have_their_marks_and_targets_of_links_are_no_text(tmp_path: Path) -> None:
    """Numbers by the depth of the list, bullets, words for terms; as Pandoc writes headings and links."""
    source = (
        "\\begin{document}\n\\hypertarget{top-one}{%\n\\section{Top}\\label{top-one}}\n"
        "\\begin{enumerate}\n\\def\\labelenumi{\\arabic{enumi}.}\n\\tightlist\n\\item\n  Chop\n"
        "\\begin{enumerate}\n\\item finely\n\\item or not\n\\end{enumerate}\n\\item Fry\n\\end{enumerate}\n"
        "\\begin{itemize}\n\\item See \\hyperlink{top-one}{the top}\n\\end{itemize}\n"
        "\\begin{description}\n\\item[Salt] a pinch\n\\end{description}\n\\end{document}"
    )
    assert [line for line in read(tmp_path, source).split("\n") if line] == [
        "1. Chop", "(a) finely", "(b) or not", "2. Fry", "- See the top", "Salt: a pinch",
    ]  # fmt: skip
