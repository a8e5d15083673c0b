from __future__ import annotations

import re
from pathlib import Path

from qiskit_qattn.evaluation.latex import latex_tables, write_document
from qiskit_qattn.evaluation.rendering import code, escaped, table

HEAD = ["Kind", "Loss", "Verdict", "95 % interval"]
ROWS = [
    [code("qisa:2,classical:2"), "1.9012 ± 0.0034", "**better**", "-0.0102 to -0.0040"],
    [code("a_b|c"), "2.1000", escaped("no <difference> & 5 %_shown"), "–"],
]


def test_a_table_becomes_a_tabular_with_its_heading():
    text = latex_tables(f"# Report\n\nwords\n\n## Verdicts of {code('x')}\n\n{table(HEAD, ROWS)}\n\nmore\n")
    begin, body = text.split("\\midrule\n")
    assert "% Verdicts of `x`\n\\begin{tabular}{lrlr}\n\\toprule\n" in begin
    assert begin.endswith("Kind & Loss & Verdict & 95 \\% interval \\\\\n")
    first, second, *rest = body.splitlines()
    assert first == (
        r"\texttt{qisa:2,classical:2} & 1.9012 \ensuremath{\pm} 0.0034 & \textbf{better} & $-$0.0102 to $-$0.0040 \\"
    )
    assert (
        second
        == r"\texttt{a\_b|c} & 2.1000 & no \ensuremath{<}difference\ensuremath{>} \& 5 \%\_shown & {\textendash} \\"
    )
    assert rest == [r"\bottomrule", r"\end{tabular}"]


def test_every_table_is_balanced_and_free_of_marks(tmp_path: Path):
    hostile = r"\input{/etc/passwd} $x$ #1 ~ ^ {"
    write_document(tmp_path, "\n\n".join(["## One %", table(["a", ""], [[escaped(hostile), code(hostile)]] * 3)] * 2))
    assert (tmp_path / "report.md").read_text("utf-8").startswith("## One %")
    text = (tmp_path / "paper" / "tables.tex").read_text("utf-8")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert r"\input" not in text.replace(r"{\textbackslash}input", "")
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 8 and all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


def test_a_document_without_tables_has_none():
    assert "tabular" not in latex_tables("# Title\n\nwords | and bars\n")


def test_rows_that_begin_like_an_option_of_the_command_before_them_are_not_one():
    text = latex_tables(table(["a", "b"], [["[0, 1]", "x"], [r"\* noted", "y"]]))
    assert [line.split(" & ")[0] for line in text.splitlines() if line.endswith(r"\\")] == [
        "a",
        "{}[0, 1]",
        "{}* noted",
    ]
