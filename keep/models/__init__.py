"""Training recipes, one a stage: which networks, which losses, one step."""

from keep.models import kalman_model, vqgan_model, video_model  # noqa: F401, I001  (importing registers)
