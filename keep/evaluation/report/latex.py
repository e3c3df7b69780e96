"""``table.tex``: the numbers of a run as a LaTeX table."""

import re
from collections.abc import Sequence

from keep.evaluation.report import paper
from keep.evaluation.report.notes import compared, format_value, is_significant, paper_headers
from keep.evaluation.report.summary import Row

ESCAPES = (
    ("\\", r"\textbackslash "), ("{", r"\{"), ("}", r"\}"), ("&", r"\&"), ("%", r"\%"), ("#", r"\#"), ("$", r"\$"),
    ("~", r"\textasciitilde "), ("^", r"\textasciicircum "), ("_", r"\_"),
    ("×10⁻²", r"$\times 10^{-2}$"), ("×10⁻³", r"$\times 10^{-3}$"), ("×", r"$\times$"), ("−", "$-$"),
    ("↑", r"$\uparrow$"), ("↓", r"$\downarrow$"), ("–", "--"),
)  # fmt: skip


def latex(content: Row) -> str:
    """The form of table A2 (booktabs), with our rows and the quoted ones in separate blocks with their own headers.

    In each block the best value is bold, and the second best underlined.
    """
    width = max(len(content["columns"]), len(paper.COLUMNS))
    lines = [
        "% needs \\usepackage{booktabs}",
        f"% quoted rows: {paper.SOURCE}.",
        f"% {paper.note([size for split in content['splits'] if split['paper'] for size in split['sizes']])}",
        f"\\begin{{tabular}}{{l{'c' * width}}}",
        "\\toprule",
    ]
    for i, split in enumerate(content["splits"]):
        lines += ["\\midrule"] * (i > 0)
        lines.append(f"\\multicolumn{{{width + 1}}}{{c}}{{{tex(split['name'])}}} \\\\")
        lines.append("\\midrule")
        if split["paper"]:
            lines += [*_quoted_block(split, width), "\\midrule"]
        lines += _own_block(split, content, width)
        if compared(split):
            lines += ["\\midrule", *_difference_block(split, content, width)]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def _block(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lines of a header and its rows, padded to ``width`` columns after the first."""
    header = " & ".join([title, *headers, *[""] * (width - len(headers))]) + r" \\"
    return [header, "\\midrule", *(" & ".join([*row, *[""] * (width + 1 - len(row))]) + r" \\" for row in rows)]


def _quoted_block(split: Row, width: int) -> list[str]:
    quoted = paper.A2[split["paper"]]
    ranked = [
        _ranked([f"{values[j]:.{paper.DECIMALS}f}" for values in quoted.values()], better)
        for j, better in enumerate(paper.HIGHER_IS_BETTER)
    ]
    rows = [[tex(name), *(column[k] for column in ranked)] for k, name in enumerate(quoted)]
    return _block("Quoted from the paper", [tex(h) for h in paper_headers()], rows, width)


def _own_block(split: Row, content: Row, width: int) -> list[str]:
    ranked = [
        _ranked([format_value(row["cells"][c["name"]]["mean"], c) for row in split["rows"]], c["better"])
        for c in content["columns"]
    ]
    rows = [[tex(row["restorer"]), *(column[k] for column in ranked)] for k, row in enumerate(split["rows"])]
    return _block("This run", _headers(content), rows, width)


def _difference_block(split: Row, content: Row, width: int) -> list[str]:
    rows = [
        [tex(f"{a} − {b}"), *(_difference(split, a, b, c) for c in content["columns"])] for a, b in compared(split)
    ]  # fmt: skip
    return _block("Difference ($^*$: significant)", _headers(content), rows, width)


def _headers(content: Row) -> list[str]:
    return [tex(f"{c['header']} {'↑' if c['better'] else '↓'}") for c in content["columns"]]


def _difference(split: Row, a: str, b: str, column: Row) -> str:
    for pair in split["pairs"]:
        if (pair["a"], pair["b"], pair["metric"]) == (a, b, column["name"]) and pair["mean"] is not None:
            mark = "$^*$" if pair["low"] is not None and is_significant(pair) else ""
            return f"${format_value(pair['mean'], column, sign=True)}$" + mark
    return "--"


def _ranked(cells: Sequence[str], higher_is_better: bool) -> list[str]:
    """The cells with the best in bold and the second best underlined, compared as printed."""
    values = sorted({float(c) for c in cells if c != "–"}, reverse=higher_is_better)
    marks = {v: mark for v, mark in zip(values, (r"\textbf", r"\underline"), strict=False)} if len(cells) > 1 else {}
    return [
        f"{marks[float(c)]}{{{c}}}" if c != "–" and float(c) in marks else c.replace("–", "--") for c in cells
    ]  # fmt: skip


def tex(text: str) -> str:
    """``text`` with LaTeX's special characters escaped."""
    for character, command in ESCAPES:
        text = text.replace(character, command)
    return re.sub(r"σ\\_(\w+)", r"$\\sigma_{\\mathrm{\1}}$", text)
