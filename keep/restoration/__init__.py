"""Restoring the faces of whole videos: pass 1 finds them (scan), pass 2 streams (pipeline), job ties both together."""

from keep.restoration.enhance import Enhancer
from keep.restoration.job import Settings, Summary, Tools, restore_video
from keep.restoration.network import KeepNetwork, Network

__all__ = ["Enhancer", "KeepNetwork", "Network", "Settings", "Summary", "Tools", "restore_video"]
