import re
from pathlib import Path

import pytest

from keep.evaluation.report import paper

SUPPLEMENT = Path(__file__).resolve().parents[3] / "../shared/reference/keep_supplementary.txt"


def test_the_note_says_where_nothing_compares():
    assert "comparable only at 512 px on VFHQ-Test" in paper.note([(512, 512)])
    assert "this run are" not in paper.note([(512, 512)])
    assert paper.note([(512, 512), (256, 320)]).endswith("The frames of this run are 320×256: no column is comparable.")


def test_every_row_has_every_column():
    assert paper.A2.keys() == {"mild", "medium", "heavy"}
    for rows in paper.A2.values():
        assert len(rows) == 8
        assert all(len(values) == len(paper.COLUMNS) for values in rows.values())


def test_keep_is_best_in_every_column_as_the_paper_says():
    for rows in paper.A2.values():
        for j, better in enumerate(paper.HIGHER_IS_BETTER):
            column = {name: values[j] for name, values in rows.items()}
            assert (max if better else min)(column, key=column.__getitem__) == "KEEP"


@pytest.mark.skipif(not SUPPLEMENT.exists(), reason="the supplement is not beside the project")
def test_the_values_are_those_of_the_supplement():
    text = SUPPLEMENT.read_text(encoding="utf-8")
    table = text[text.index("Table A2: Quantitative") :]
    for level, rows in paper.A2.items():
        _, _, table = table.partition(f"{level.capitalize()}\t")
        _, _, table = table.partition("\n")
        for name, values in rows.items():
            line, _, table = table.partition("\n")
            found = re.fullmatch(r"([\w+]+)(?: \[\d+\]| \(Ours\))\t(.+)", line)
            assert found is not None
            assert found[1] == name
            assert found[2].split("\t") == [f"{v:.4f}" for v in values]
