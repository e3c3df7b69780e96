"""Faces in video: found, tracked, smoothed, cut out, recognised.

Boxes are (x0, y0, x1, y1) and points (x, y), in pixels of the frame, pixel centres at whole numbers. Five points are
left eye, right eye, nose, left and right corner of the mouth; left is the smaller x of a frontal face.
"""

from keep.faces import align, detect, identity, landmarks, shots, smooth, track

__all__ = ["align", "detect", "identity", "landmarks", "shots", "smooth", "track"]
