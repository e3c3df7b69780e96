"""Writes the step of a network as ONNX, or compiled by AOTInductor."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

import keep
from keep.archs.from_shapes import arch_of
from keep.archs.keep import KEEP
from keep.config.registry import dump
from keep.flow.dis import DIS
from keep.inference.exported.manifest import KEY, Manifest
from keep.inference.exported.modules import exportable
from keep.inference.exported.step import Step
from keep.utils.dtypes import parse_dtype
from keep.utils.errors import UserError, reported
from keep.utils.io import AtomicWrite

OPSET = 20
"""Of ONNX; GridSample has been in its present form since 20."""
SUFFIXES = {".onnx": "ONNX", ".pt2": "AOTInductor"}

Flow = Literal["auto", "inside", "input"]


def export(
    net: KEEP, path: str | Path, dtype: torch.dtype | str = "float32", flow: Flow = "auto", weights: str = ""
) -> Manifest:
    """Write the step of ``net``; the suffix selects the format: ``.onnx``, or ``.pt2`` for AOTInductor.

    Args:
        net: the network, with its weights.
        path: the file to write.
        dtype: ``float32`` or ``float16``; inputs and outputs that are images are always float32.
        flow: ``inside``: the graph estimates the flow; ``input``: it is given; ``auto``: inside, unless the estimator
            is DIS, which is a function of OpenCV.
        weights: name of the weights, for the file's description.

    Raises:
        UserError: another suffix or dtype, a missing package, or an estimator that cannot be in a graph.
    """
    path, dtype = Path(path), parse_dtype(dtype)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}")
    if dtype == torch.bfloat16:
        raise UserError(
            "dtype: an export is float32 or float16; OpenVINO computes a float32 file in bfloat16 by itself"
        )
    step = Step(exportable(net, dtype), own_flow=_inside(net, flow))
    manifest = Manifest(
        image_size=net.image_size,
        dtype=str(dtype).removeprefix("torch."),
        flow=None if step.own_flow else dump(arch_of(net).get("flow")),
        inputs=step.inputs,
        outputs=step.outputs,
        weights=weights,
        version=keep.__version__,
    )  # fmt: skip
    write = _write_onnx if path.suffix == ".onnx" else _write_inductor
    with AtomicWrite(path) as temporary, _quiet():
        write(_traced(step), manifest, temporary)
    return manifest


def _inside(net: KEEP, flow: Flow) -> bool:
    if flow == "auto":
        return net.flownet is not None and not isinstance(net.flownet, DIS)
    if flow == "inside" and (net.flownet is None or isinstance(net.flownet, DIS)):
        found = "no flow estimator" if net.flownet is None else "the estimator DIS, a function of OpenCV"
        raise UserError(
            f"flow: this network has {found}, which cannot be in the graph: export with the flow as an input"
        )
    return flow == "inside"


@torch.no_grad()
def _traced(step: Step) -> torch.export.ExportedProgram:
    """The graph of the step; its batch is dynamic."""
    example = step.example(2)
    step(*example)  # GMFlow makes its grids at the first call, outside of the graph
    shapes = tuple({0: torch.export.Dim.DYNAMIC} if x.dim() else None for x in example)
    with reported("torch.export cannot trace this network"):
        return torch.export.export(step, example, dynamic_shapes=(shapes,), strict=False)


def _write_onnx(program: torch.export.ExportedProgram, manifest: Manifest, path: Path) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401, torch's exporter needs it
    except ImportError as error:
        raise UserError(f"writing ONNX needs {error.name}: pip install keep-vfsr[export]") from error
    names: dict[str, Any] = {
        "input_names": [port.name for port in manifest.inputs],
        "output_names": [port.name for port in manifest.outputs],
    }
    with reported("PyTorch cannot write this network as ONNX"):
        exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False, optimize=False, **names)
    assert exported is not None
    for node in exported.model.graph.all_nodes():  # stack traces, with the paths of this machine
        node.metadata_props.clear()
    exported.model.metadata_props[KEY] = manifest.to_json()
    exported.save(path)
    with reported("the written graph is not valid ONNX"):
        onnx.checker.check_model(path)


def _write_inductor(program: torch.export.ExportedProgram, manifest: Manifest, path: Path) -> None:
    options = {"aot_inductor.metadata": {KEY: manifest.to_json()}}
    with reported("AOTInductor cannot compile this network"):
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of PyTorch's exporter, which are for its developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
