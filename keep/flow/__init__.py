"""Optical flow: warping, and the estimators registered in ``FLOWS``.

Flow is in pixels, channel 0 = x, channel 1 = y. ``flow(current, previous)`` says where each pixel of the current
frame lies in the previous one: sampling the previous frame at p + flow(p) lands on the current frame.
"""

from keep.flow import dis, gmflow, raft

__all__ = ["dis", "gmflow", "raft"]
