"""No-reference quality by the package pyiqa, when it is installed: MUSIQ, CLIP-IQA and others."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from keep.config.registry import METRICS
from keep.metrics.base import Clip, Metric
from keep.utils.errors import UserError

FRAMES_AT_ONCE = 8


@METRICS.register()
class PyIQA(Metric):
    """A no-reference metric of the package pyiqa; the ground truth is not used. Not in the paper.

    The networks and their weights are pyiqa's; it downloads them. Their licences differ.

    Args:
        metric: its name in pyiqa: ``musiq`` (Ke et al., ICCV 2021), ``clipiqa`` (Wang et al., AAAI 2023), ``maniqa``,
            …
    """

    needs_truth = False

    def __init__(self, metric: Annotated[str, Field(pattern=r"^[\w+-]+$", max_length=100)] = "musiq") -> None:
        try:
            import pyiqa  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise UserError(f"metric {metric}: it needs the package pyiqa: pip install pyiqa ({error})") from None
        try:
            self.net = pyiqa.create_metric(metric, device=torch.device("cpu"))
        except Exception as error:  # an unknown name, or a download that failed: pyiqa raises many kinds
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"metric {metric}: pyiqa cannot build it: {reason}") from error
        if getattr(self.net, "metric_mode", "NR") != "NR":
            raise UserError(f"metric {metric}: it compares with a reference; only metrics without one are taken")
        self.name, self.higher_is_better = f"{metric} (pyiqa)", not self.net.lower_better

    def measure(self, output: Clip, target: Clip) -> np.ndarray:
        net = self.net.to(output.frames.device)
        values = [net(part.float() / 255).flatten().double() for part in output.frames.split(FRAMES_AT_ONCE)]
        return torch.cat(values).cpu().numpy()
