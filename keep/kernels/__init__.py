"""Triton kernels for CUDA, and the modules that use them in place of PyTorch's."""
