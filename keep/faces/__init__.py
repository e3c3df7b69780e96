"""Faces in video: detection, tracking, smoothing, alignment, recognition, pasting.

Boxes are (x0, y0, x1, y1) and points (x, y), in pixels of the frame; pixel centres are at integers. The five points are
left eye, right eye, nose, left and right corner of the mouth; left is the smaller x of a frontal face.
"""

from keep.faces import align, detect, identity, landmarks, shots, smooth, track

__all__ = ["align", "detect", "identity", "landmarks", "shots", "smooth", "track"]
