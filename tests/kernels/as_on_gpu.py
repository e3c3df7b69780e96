"""Programs of test_without_gpu.py: Triton compiles for a GPU that is not there.

python -m as_on_gpu compile CAPABILITY: compile all kernels; print their number.
python -m as_on_gpu written SIZE…: trace a training step with torch.compile; print the tensors that each kernel writes.
"""

import sys
from typing import Any

import torch
import triton
from torch._dynamo.backends.common import aot_autograd
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver

from keep.archs.blocks import GroupNormSiLU
from keep.kernels import group_norm_triton
from keep.kernels.norm_layers import FusedGroupNorm

KERNELS = (
    "moments", "statistics", "apply", "small",
    "gradient_sums", "group_sums", "input_gradient", "small_backward",
)  # fmt: skip
TYPES = {
    **dict.fromkeys(("x", "y", "dy", "dx"), "*bf16"),
    **dict.fromkeys(("hw", "splits", "rows"), "i32"),
    "eps": "fp32",
}
CONSTANTS = {"C": 96, "G": 32, "SILU": True, "P": 16, "BC": 128, "BS": 64, "BG": 4}


def compile_all(capability: int) -> int:
    """Compile every kernel to the GPU's machine code; returns their number."""
    for name in KERNELS:
        kernel = getattr(group_norm_triton, name)
        names = kernel.arg_names
        signature = {n: "constexpr" if n in CONSTANTS else TYPES.get(n, "*fp32") for n in names}
        constants = {(i,): CONSTANTS[n] for i, n in enumerate(names) if n in CONSTANTS}
        compiled = triton.compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", capability, 32))
        assert compiled.asm["cubin"]
    return len(KERNELS)


class Pretended:
    """As much of Triton's driver as torch.compile asks for to analyse a kernel."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0


def written(size: int) -> list[str]:
    """Names of the tensors that each kernel writes in a training step, in order."""
    norm = FusedGroupNorm(GroupNormSiLU(32, 64, device="meta"), "meta")
    x = torch.empty(2, 64, size, size, device="meta").contiguous(memory_format=torch.channels_last)
    graphs = []

    def keep(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(norm, fullgraph=True, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))
    compiled(x.requires_grad_()).sum().backward()
    calls = [n for g in graphs for n in g.graph.nodes if "triton_kernel_wrapper" in str(n.target)]
    return [" ".join(n.kwargs["tensors_to_clone"]) for n in calls]


if __name__ == "__main__":
    task, *arguments = sys.argv[1:]
    if task == "compile":
        print(compile_all(int(arguments[0])))
    else:
        driver.set_active(Pretended())  # type: ignore[arg-type]
        print("\n".join(line for size in arguments for line in written(int(size))))
