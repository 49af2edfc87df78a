"""A comparison as text that other programs take: Markdown, CSV, JSON, LaTeX."""

import csv
import io
import json
import re
from collections.abc import Callable, Sequence

from pear_cli.errors import printable
from pear_cli.report.analysis import listing
from pear_cli.report.analysis.comparison import Line
from pear_cli.report.analysis.fields import Field, fields, record
from pear_cli.report.analysis.listing import MARK, RANDOM
from pear_cli.system.streams import formula_free

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#~&!])")
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "≠": r"$\neq$",
    "−": r"$-$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "…": r"\dots{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": "{-}",  # two of them would become a dash
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def markdown(lines: Sequence[Line]) -> str:
    """A table of Markdown as GitHub has it."""
    shown = fields(lines)
    rows = [[one.title for one in shown], ["---:" if one.number else "---" for one in shown]]
    rows += [[_markdown(one.text(line)) for one in shown] for line in lines]
    notes = "".join(f"\n- {_markdown(note)}" for note in notes_of(lines))
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    return table + (f"{notes}\n" if notes else "")


def comma_separated(lines: Sequence[Line]) -> str:
    """One row a line with full numbers: shares in [0, 1], bytes, seconds."""
    records = [record(line) for line in lines]
    file = io.StringIO()
    if records:
        writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _spreadsheet(item) for key, item in one.items()} for one in records)
    return file.getvalue()


def json_text(lines: Sequence[Line]) -> str:
    """A list of objects, with the accuracy of each seed."""
    records = [{**record(line), "accuracy_by_seed": line.by_seed} for line in lines]
    return json.dumps(records, indent=1, allow_nan=False) + "\n"


def latex(lines: Sequence[Line]) -> str:
    """A small tabular with the rules of booktabs; a rule stands between datasets, and notes are comments."""
    shown = [one for one in fields(lines) if one.name != "select"]
    align = "".join("r" if one.number else "l" for one in shown)
    rows = [r"% \usepackage{booktabs,textcomp} \usepackage[T1]{fontenc}"]
    rows += [f"% {printable(note)}" for note in notes_of(lines)]
    rows += [r"{\small\setlength{\tabcolsep}{4pt}", f"\\begin{{tabular}}{{{align}}}"]
    rows += [r"\toprule", _latex_row(shown, lambda one: one.title), r"\midrule"]
    for before, line in zip([None, *lines], lines, strict=False):
        if before is not None and before.dataset != line.dataset:
            rows.append(r"\midrule")
        rows.append(_latex_row(shown, lambda one, line=line: one.text(line)))  # type: ignore[misc]
    rows.append(r"\bottomrule")
    if any(line.first.weights == "random" for line in lines):
        said = escape_latex(f"{MARK} {RANDOM}")
        rows.append(f"\\multicolumn{{{len(shown)}}}{{l}}{{\\footnotesize {said}}} \\\\")
    return "\n".join([*rows, r"\end{tabular}}", ""])


def notes_of(lines: Sequence[Line]) -> list[str]:
    """What a reader of the table must know: what cannot be compared, and what has no interval."""
    notes = [note.removeprefix("note: ") for note in listing.notes([line.first for line in lines])]
    alone = sum(len(line.by_seed) == 1 for line in lines)
    return notes + ([f"{alone} of {len(lines)} have one seed, and no interval"] if alone else [])


FORMATS: dict[str, Callable[[Sequence[Line]], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "json": json_text,
    "latex": latex,
}


def escape_latex(text: str) -> str:
    """Text that LaTeX typesets as it stands; letters beyond Latin-1 become their number."""
    return "".join(LATEX.get(c, c if ord(c) < 256 else f"U+{ord(c):04X}") for c in printable(text))


def _latex_row(shown: Sequence[Field], text: Callable[[Field], str]) -> str:
    return " & ".join(escape_latex(text(one)) for one in shown) + r" \\"


def _markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", printable(text))


def _spreadsheet(item: object) -> object:
    if isinstance(item, list):
        return " ".join(map(str, item))
    if not isinstance(item, str):
        return item
    return printable(formula_free(item))
