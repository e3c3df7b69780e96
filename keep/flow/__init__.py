"""Optical flow: warping, and the estimators registered in ``FLOWS``.

Flow is in pixels, channel 0 = x, channel 1 = y. ``flow(current, previous)`` points from each pixel of the current
frame to its position in the previous one: sampling the previous frame at p + flow(p) gives the current frame.
"""

from keep.flow import dis, gmflow, raft, spynet

__all__ = ["dis", "gmflow", "raft", "spynet"]
