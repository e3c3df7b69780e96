from keep.utils import tables

ROWS = (
    {"method": "bicubic", "PSNR": 25.0, "LPIPS (alex)": 0.4, "frames": 8},
    {"method": "KEEP", "PSNR": 27.5, "LPIPS (alex)": 0.17001, "frames": 8},
    {"method": "a|b", "PSNR": float("nan"), "LPIPS (alex)": 0.17002},
)
COLUMNS = {"method": None, "PSNR": True, "LPIPS (alex)": False, "frames": None}


def test_markdown():
    assert tables.markdown_table(ROWS, COLUMNS).splitlines() == [
        "| method | PSNR ↑ | LPIPS (alex) ↓ | frames |",
        "| :-- | --: | --: | --: |",
        "| bicubic | 25.0000 | 0.4000 | 8 |",
        "| KEEP | 27.5000* | 0.1700* | 8 |",
        "| a\\|b | – | 0.1700* | – |",
    ]


def test_console_columns_are_aligned():
    lines = tables.console_table(ROWS, COLUMNS, digits=2).splitlines()
    assert len(lines) == 5
    assert lines[3].split() == ["KEEP", "27.50*", "0.17*", "8"]
    assert lines[2].index("25.00") == lines[3].index("27.50")
    assert lines[2].index("0.40") == lines[3].index("0.17")


def test_infinity_is_a_value():
    table = tables.markdown_table([{"PSNR": float("inf")}, {"PSNR": 30.0}], {"PSNR": True})
    assert table.splitlines()[2:] == ["| inf* |", "| 30.0000 |"]


def test_one_row_has_no_best():
    assert "*" not in tables.markdown_table(ROWS[:1], COLUMNS)


def test_plain_column_names_rank_nothing():
    table = tables.markdown_table(ROWS, ["method", "PSNR"])
    assert "*" not in table
    assert "↑" not in table
