"""Video degradation, eq. (9) of the supplement: the steps and the pipeline that runs them."""

from keep.degradation import blur, codec, noise, pipeline, resize

__all__ = ["blur", "codec", "noise", "pipeline", "resize"]
