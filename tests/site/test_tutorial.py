"""The tutorial notebook runs, with two steps a stage."""

import json
from pathlib import Path

import pytest
from site_snippets import ROOT

from keep.data.video_io import probe

NOTEBOOK = ROOT / "docs/tutorial.ipynb"


def short_notebook() -> str:
    """The notebook with two steps a stage."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert text.count('"STEPS = 60  #') == 1
    return text.replace('"STEPS = 60  #', '"STEPS = 2  #')


def test_its_cells_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "tutorial"}
    for number, cell in enumerate(json.loads(short_notebook())["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
    assert probe(tmp_path / "restored.mp4").frames == 12
    assert (tmp_path / "experiments/stage3/models/net_latest.pth").is_file()


def test_it_is_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
def test_it_runs_in_jupyter(tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.reads(short_notebook(), as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "restored.mp4").is_file()
