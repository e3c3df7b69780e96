"""The tutorial notebook runs in Jupyter, with two steps a stage."""

import json
from pathlib import Path

import nbclient
import nbformat
from site_snippets import ROOT

from keep.data.video_io import probe

NOTEBOOK = ROOT / "docs/tutorial.ipynb"


def test_it_runs_in_jupyter(tmp_path: Path) -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert text.count('"STEPS = 60  #') == 1
    notebook = nbformat.reads(text.replace('"STEPS = 60  #', '"STEPS = 2  #'), as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert probe(tmp_path / "restored.mp4").frames == 12
    assert (tmp_path / "experiments/stage3/models/net_latest.pth").is_file()


def test_it_is_stored_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
