"""What a video is restored with: settings, networks, and a progress callback."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from keep.data.mux import Codec
from keep.data.mux.fields import Deinterlace
from keep.faces.parse import Parser
from keep.inference.video.enhance import Enhancer
from keep.inference.video.network import Network


@dataclass(frozen=True)
class Settings:
    """How a video is restored; see ``docs/restore.md``.

    Attributes:
        aligned: the frames are aligned faces: no detection, no pasting.
        detect_every: frames from one search of the whole frame to the next; known faces are followed in between.
        max_gap: longest run of frames without a detection that is bridged.
        sigma: σ of eq. (10), in frames; 0 keeps the landmarks as detected.
        radius: radius of eq. (10), in frames.
        min_face: smallest face that is restored, in pixels of the frame.
        min_frames: shortest track that is restored.
        match_color: give restored faces the coarse colours of the input.
        auto: leave faces that are sharp already, and blend those in between.
        scale: output size over input size; None: the background model's scale, or 1 without one.
        batch: largest number of faces in the same frames that are computed together.
        codec: codec of the output; ``auto``: H.265 for more than 8 bits and HDR, else H.264.
        deinterlace: ``auto``: interlaced video becomes progressive; ``off``: it is taken as progressive; ``keep``: its
            faces are restored in progressive frames, but interlaced ones are written.
        double_rate: deinterlace to a frame for each field.
        any_angle: search frames without an upright face for faces on their side or upside down.
        crf: quality of H.264 and H.265; lower is better.
        preset: encoder speed of H.264 and H.265.
        fps: frame rate of a folder of frames.
        frames: write a folder of PNG files instead of a video. Always on when input and output are both folders.
        without_sound: go on without sound that can neither be copied nor transcoded.
        compare: also write a video with input and output side by side.
        plots: also plot the landmarks of each track.
        confidence: also write a video of the expected error and a record of it: ``map``, ``overlay``, or the video's
            file for a map. It needs a network with an error model.
        sign: PEM file of a certificate, its chain and the private key: signs a record into the output (C2PA).
    """

    aligned: bool = False
    detect_every: int = 8
    max_gap: int = 10
    sigma: float = 5
    radius: int = 20
    min_face: float = 24
    min_frames: int = 5
    match_color: bool = False
    auto: bool = False
    scale: float | None = None
    batch: int = 4
    codec: Codec = "auto"
    crf: int = 18
    preset: str = "medium"
    deinterlace: Deinterlace = "auto"
    double_rate: bool = False
    any_angle: bool = False
    fps: float = 25
    frames: bool = False
    without_sound: bool = False
    compare: bool = False
    plots: bool = False
    confidence: str | None = None
    sign: str | None = None


@dataclass
class Tools:
    """The networks of a run. Only ``network`` is always needed; ``detector`` is, unless the faces are aligned.

    Attributes:
        network: restores aligned crops.
        detector: frame → faces.
        identity: distinguishes people.
        parser: separates a face from what covers it.
        enhancer: enlarges the full frame.
        about: what is known of the network, for the record of the restoration, as plain data.
    """

    network: Network
    detector: Callable[[np.ndarray], list[Any]] | None = None
    identity: Any | None = None
    parser: Parser | None = None
    enhancer: Enhancer | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


class Progress(Protocol):
    """Called for every frame of a pass."""

    def __call__(self, what: str, done: int, total: int | None, tracks: list[int]) -> None:
        """
        Args:
            what: name of the pass.
            done: frames done so far.
            total: frames in all; None if unknown.
            tracks: ids of the tracks that are active in this frame.
        """


def no_progress(what: str, done: int, total: int | None, tracks: list[int]) -> None:
    """A :class:`Progress` that reports nothing."""
