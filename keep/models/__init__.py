"""Training recipes, one a stage: its networks, its losses and what one step computes."""

from keep.models import kalman_model, regression_model, vqgan_model, video_model  # noqa: F401, I001  (importing registers)
