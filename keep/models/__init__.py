"""Training recipes, one a stage and one for the error model: its networks, its losses, what one step computes."""

from keep.models import confidence_model, kalman_model, regression_model, vqgan_model, video_model  # noqa: F401, I001  (importing registers)
