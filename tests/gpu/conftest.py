"""For deterministic matrix products, CUDA reads this when it starts."""

import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
