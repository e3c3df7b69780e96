"""Restores the faces of videos.

:mod:`job` restores one video: :mod:`scan` finds its faces (pass 1), :mod:`pipeline` restores and pastes them (pass 2).
:mod:`options` and :mod:`command` are the command line.
"""

from keep.inference.video.enhance import Enhancer
from keep.inference.video.job import restore_video
from keep.inference.video.network import KeepNetwork, Network
from keep.inference.video.settings import Settings, Tools
from keep.inference.video.summary import Summary

__all__ = ["Enhancer", "KeepNetwork", "Network", "Settings", "Summary", "Tools", "restore_video"]
