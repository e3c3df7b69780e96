"""The dataset class that fits a folder of clips."""

import os
from pathlib import Path

from keep.data.video_io import VIDEO_SUFFIXES


def dataset_for(root: Path) -> str:
    """``VideoClips`` if the folder or one below it holds a video file, else ``FrameFolders``."""
    found = any(Path(n).suffix.lower() in VIDEO_SUFFIXES for _, _, names in os.walk(root) for n in names)
    return "VideoClips" if found else "FrameFolders"
