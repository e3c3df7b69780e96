"""Links of the site: between pages, to pages outside of docs/, to files and folders of the repository."""

import json

import pytest
from site_snippets import ROOT

from scripts.docs_site import linked_files, read, rewritten


@pytest.mark.parametrize(
    ("source", "page", "link", "expected"),
    [
        ("README.md", "index.md", "[a](docs/restore.md)", "[a](restore.md)"),
        ("README.md", "index.md", "![a](docs/images/method.svg)", "![a](images/method.svg)"),
        ("README.md", "index.md", "[a](datasets/README.md#x)", "[a](datasets.md#x)"),
        ("README.md", "index.md", "[a](keep/archs/keep.py)", "[a](repository/keep/archs/keep.py)"),
        ("README.md", "index.md", "[keep/data/](keep/data/)", "keep/data/"),
        ("docs/training.md", "training.md", "[a](../datasets/README.md)", "[a](datasets.md)"),
        (
            "docs/training.md",
            "training.md",
            "[a](#memory) [b](https://x.org/y.md)",
            "[a](#memory) [b](https://x.org/y.md)",
        ),
        ("docs/reference/api.md", "reference/api.md", "[a](../../README.md)", "[a](../index.md)"),
        (
            "datasets/README.md",
            "datasets.md",
            "```\n[a](b.md)\n```\n[a](../docs/data.md)",
            "```\n[a](b.md)\n```\n[a](data.md)",
        ),
    ],
)
def test_links_are_right_in_the_site(source, page, link, expected):
    assert rewritten(link, source, page, ROOT) == expected


def test_files_that_pages_link_to_exist():
    assert "keep/archs/keep.py" in linked_files(ROOT)
    assert all((ROOT / name).is_file() for name in linked_files(ROOT))


def test_a_notebook_becomes_text_and_code(tmp_path):
    cells = [{"cell_type": "markdown", "source": ["# A\n", "b"]}, {"cell_type": "code", "source": ["x = 1"]}]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    assert read(tmp_path / "a.ipynb") == "# A\nb\n\n```python\nx = 1\n```\n"
