"""Ranges of numbers that options take. Every option that is a number has both ends: see tests/config/test_ranges.py.

The upper ends are far above what makes sense; they catch slips of the keyboard before memory is asked for.
"""

from typing import Annotated

from pydantic import Field

LARGEST_SIDE = 2**14

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
"""Side of an image or a feature map, in pixels."""
Width = Annotated[int, Field(ge=1, le=2**16)]
"""Channels, tokens, codes: a size of a network's tensors."""
Depth = Annotated[int, Field(ge=1, le=256)]
"""Layers, blocks, heads."""
Scale = Annotated[int, Field(ge=1, le=64)]
"""Factor between the sides of two images."""
Count = Annotated[int, Field(ge=1, le=10**9)]
"""Steps, clips, frames: at least one."""
CountOrNone = Annotated[int, Field(ge=0, le=10**9)]
"""The same; zero means none."""
Batch = Annotated[int, Field(ge=1, le=2**16)]
"""Clips or frames in memory at once."""
Processes = Annotated[int, Field(ge=0, le=1024)]
"""Processes or threads of one machine; zero means none, or a choice of the library's."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Rate = Annotated[float, Field(gt=0, le=100)]
"""A learning rate."""
FrameRate = Annotated[int, Field(ge=1, le=1000)]
"""Frames per second."""
Crf = Annotated[int, Field(ge=0, le=51)]
"""Quality of H.264 and H.265; lower is better."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Factor of a term, a rate or a penalty; zero switches it off."""
Factor = Annotated[float, Field(gt=0, le=1e6)]
"""The same, above zero."""
Sigma = Annotated[float, Field(ge=0, le=1000)]
"""Standard deviation, in pixels, frames or grey levels."""
Share = Annotated[float, Field(ge=0, le=1)]
"""A probability or a share of a whole."""
Decay = Annotated[float, Field(ge=0, lt=1)]
"""Share of the old value that a running average keeps."""
Value = Annotated[float, Field(ge=-1e6, le=1e6)]
"""A coordinate or an offset."""
