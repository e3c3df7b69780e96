"""Restoring the faces of whole videos: pass 1 finds them (scan), pass 2 streams (pipeline), job ties both together."""

from keep.inference.video.enhance import Enhancer
from keep.inference.video.job import Settings, Summary, Tools, restore_video
from keep.inference.video.network import KeepNetwork, Network

__all__ = ["Enhancer", "KeepNetwork", "Network", "Settings", "Summary", "Tools", "restore_video"]
