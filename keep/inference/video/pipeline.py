"""Pass 2: streams the frames; cuts faces out, restores them, and pastes them back.

The network works in windows, so a frame waits until all its faces are restored. Cutting, restoring and pasting run at
the same time (:func:`painted`), except for frames larger than 1080p. At most three windows of frames are in memory, one
of large ones, for any length of the video and any number of faces.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from keep.data.mux import TimedFrame
from keep.faces.align import crop, scale_of
from keep.faces.parse import Parser, soft_mask
from keep.faces.paste import face_mask, from_zoomed, match_colour, paste
from keep.inference.video.enhance import Enhancer
from keep.inference.video.network import Judged, Network
from keep.inference.video.scan import AlignedTrack
from keep.utils.clock import Clock
from keep.utils.overlap import ahead, frames_ahead

DECODED, RESTORED = 50 << 20, 64 << 20  # bytes of frames that wait for the next step; a frame of 1080p has 6 MB


@dataclass
class RestoredFace:
    """A face of one frame.

    Attributes:
        given: the crop of the input, uint8 (S, S, 3).
        matrix: (2, 3), frame → crop; None if the frame itself is the aligned face.
        output: the restored crop; None until it is computed.
        gray: the input has no colour here.
        strength: how much of the restored face is wanted, 0 to 1.
        track: number of its track.
        judged: what the error model says of ``output``; None without one.
    """

    given: np.ndarray
    matrix: np.ndarray | None
    output: np.ndarray | None = None
    gray: bool = False
    strength: float = 1.0
    track: int = 0
    judged: Judged | None = None

    @property
    def restored(self) -> np.ndarray:
        """``output``, once it is computed."""
        assert self.output is not None
        return self.output


@dataclass
class WaitingFrame:
    """A frame and its faces; complete when all faces are restored.

    Attributes:
        faces: all faces, cut out of the frame.
        parts: the same faces by batch, and whether a gap or the end of the batch follows this frame.
    """

    frame: TimedFrame
    faces: list[RestoredFace] = field(default_factory=list)
    parts: list[tuple["Batch", list[RestoredFace], bool]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return all(face.output is not None for face in self.faces)


class Batch:
    """Tracks of exactly the same frames: one recurrence each, computed together.

    Frames are cut (:meth:`cut`) ahead of those that are restored (:meth:`add`), maybe in another thread.
    """

    def __init__(self, tracks: Sequence[AlignedTrack], network: Network) -> None:
        self.tracks, self.network = tracks, network
        self.frames = tracks[0].frames
        self._restore = network.begin()
        self._next = 0  # position in ``frames``
        self._window: list[list[RestoredFace]] = []

    @property
    def all_cut(self) -> bool:
        return self._next == len(self.frames)

    def cut(self, waiting: WaitingFrame, clock: Clock) -> None:
        """Cut this batch's faces out of a frame."""
        if self.all_cut or self.frames[self._next] != waiting.frame.index:
            return
        with clock("crop"):
            faces = [self._cut(track, waiting.frame.image) for track in self.tracks]
        self._next += 1
        ends = self.all_cut or self.frames[self._next] != waiting.frame.index + 1
        waiting.faces += faces
        waiting.parts.append((self, faces, ends))

    def add(self, faces: list[RestoredFace], ends: bool, clock: Clock) -> None:
        """Take the faces of the next frame. Restore the window when it is full or the frames have a gap."""
        self._window.append(faces)
        if ends or len(self._window) == self.network.window:
            self.flush(clock)

    def flush(self, clock: Clock) -> None:
        """Restore the crops collected so far."""
        if not self._window:
            return
        with clock("network"):
            restored = self._restore(np.stack([np.stack([face.given for face in faces]) for faces in self._window]))
        judged = getattr(self._restore, "judged", None)
        for i, (faces, images) in enumerate(zip(self._window, restored, strict=True)):
            for j, (face, image) in enumerate(zip(faces, images, strict=True)):
                face.output, face.judged = image, judged[i][j] if judged else None
        self._window = []

    def _cut(self, track: AlignedTrack, image: np.ndarray) -> RestoredFace:
        size = self.network.size
        if track.points is None:  # the frame itself is the aligned face
            how = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_LINEAR
            return RestoredFace(cv2.resize(image, (size, size), interpolation=how), None, track=track.id)
        matrix = track.matrix(self._next, size)
        return RestoredFace(crop(image, matrix, size), matrix, gray=track.gray, strength=track.strength, track=track.id)


def batches(tracks: Sequence[AlignedTrack], network: Network, size: int) -> list[Batch]:
    """The tracks in batches of at most ``size``, sorted by first frame."""
    by_frames: dict[bytes, list[AlignedTrack]] = {}
    for track in tracks:
        by_frames.setdefault(track.frames.tobytes(), []).append(track)
    groups = [group[i : i + size] for group in by_frames.values() for i in range(0, len(group), size)]
    return [Batch(group, network) for group in sorted(groups, key=lambda group: int(group[0].frames[0]))]


def cut_faces(frames: Iterable[TimedFrame], groups: Iterable[Batch], clock: Clock) -> Iterator[WaitingFrame]:
    """Every frame, in order, with its faces cut out.

    Args:
        frames: the frames of pass 1, decoded again.
        groups: sorted by first frame.
        clock: measures ``crop``.
    """
    upcoming, active = deque(groups), []
    for frame in frames:
        while upcoming and upcoming[0].frames[0] <= frame.index:
            active.append(upcoming.popleft())
        waiting = WaitingFrame(frame)
        for group in active:
            group.cut(waiting, clock)
        active = [group for group in active if not group.all_cut]
        yield waiting


def restore_faces(frames: Iterable[WaitingFrame], clock: Clock) -> Iterator[WaitingFrame]:
    """Every frame, in order, with its faces restored but not pasted.

    Args:
        frames: those of :func:`cut_faces`.
        clock: measures ``network``.
    """
    waiting: deque[WaitingFrame] = deque()
    for frame in frames:
        waiting.append(frame)
        for group, faces, ends in frame.parts:
            group.add(faces, ends, clock)
        while waiting and waiting[0].complete:
            yield waiting.popleft()
    for frame in waiting:  # pass 2 decoded fewer frames than pass 1
        for group, _, _ in frame.parts:
            group.flush(clock)
    yield from waiting


def painted(
    frames: Iterable[TimedFrame],
    size: tuple[int, int],
    tracks: Sequence[AlignedTrack],
    network: Network,
    painter: "Painter",
    clock: Clock,
    batch: int = 4,
) -> Generator[tuple[WaitingFrame, np.ndarray], None, None]:
    """Every frame, in order, and its restored picture. Decoding and cutting, restoring, and pasting have a thread each.

    Args:
        frames: the frames of pass 1, decoded again.
        size: (height, width) of the frames.
        tracks: the tracks found by pass 1.
        network: restores the crops.
        painter: pastes them.
        clock: measures each part.
        batch: largest number of tracks of the same frames that are computed together.
    """
    frame_bytes = 3 * size[0] * size[1]
    cut = ahead(cut_faces(frames, batches(tracks, network, batch), clock), frames_ahead(frame_bytes, DECODED, 8))
    # A window is complete at once: while it is pasted and written, the next one is restored.
    waiting = ahead(restore_faces(cut, clock), frames_ahead(frame_bytes, RESTORED, network.window))
    return ahead(((frame, painter.paint(frame, clock)) for frame in waiting), frames_ahead(frame_bytes, 1, 1))


def to_gray(image: np.ndarray) -> np.ndarray:
    """uint8 RGB without colour."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


class Painter:
    """Pastes restored faces into their frames.

    Args:
        scale: output size over input size.
        enhancer: enlarges the full frame first; without one, the frame is resized bicubically.
        parser: separates the face from what covers it; without one, the mask is a soft ellipse.
        match_color: give restored faces the coarse colours of the input.
        gray: the video is black and white.
        convert: 8-bit pixels → those of the frames as stored, which are painted on; None: on the 8-bit images.
    """

    def __init__(
        self,
        scale: float = 1,
        enhancer: Enhancer | None = None,
        parser: Parser | None = None,
        match_color: bool = False,
        gray: bool = False,
        convert: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.scale, self.enhancer, self.parser, self.match_color = scale, enhancer, parser, match_color
        self.gray, self.convert = gray, convert

    def given(self, frame: TimedFrame) -> np.ndarray:
        """The frame that is painted on."""
        return frame.image if self.convert is None or frame.deep is None else frame.deep()

    def size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the output for frames of this size."""
        return round(height * self.scale), round(width * self.scale)

    def background(self, image: np.ndarray) -> np.ndarray:
        """The resized frame without restored faces; a new array."""
        size = self.size(*image.shape[:2])[::-1]
        result = self.enhancer(image) if self.enhancer is not None else image
        if result.shape[1::-1] != size:
            shrinks = result.shape[0] > size[1]
            result = cv2.resize(result, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        return result.copy() if result is image else result

    def paint(self, waiting: WaitingFrame, clock: Clock) -> np.ndarray:
        """The frame with its faces restored, in the values of :meth:`given`. Larger, nearer faces are pasted last."""
        aligned = [face.restored for face in waiting.faces if face.matrix is None]
        if aligned:
            return to_gray(aligned[0]) if self.gray else aligned[0]
        with clock("background"):
            image = self.background(self.given(waiting.frame))
        placed = [(scale_of(face.matrix), face) for face in waiting.faces if face.matrix is not None]
        for _, face in sorted(placed, key=lambda pair: -pair[0]):
            assert face.matrix is not None
            restored = face.restored
            with clock("mask"):
                mask = np.float32(face.strength) * self.mask(restored, face.given)
            with clock("paste"):
                if self.match_color:
                    restored = match_colour(restored, face.given)
                if self.gray or face.gray:
                    restored = to_gray(restored)
                paste(image[..., :3], restored, mask, from_zoomed(face.matrix, self.scale), self.convert)
        return image

    def mask(self, restored: np.ndarray, given: np.ndarray) -> np.ndarray:
        """The pasting mask of one crop, float32 (S, S)."""
        if self.parser is None:
            return face_mask(restored.shape[0])
        return soft_mask(*self.parser(np.stack([restored, given])))
