"""Writes a video frame by frame, with all other content of its source."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from keep.data.decode import as_stored, ffmpeg_path
from keep.data.mux.aspect import with_aspect
from keep.data.mux.colours import BT709, FULL, LIMITED, MATRICES, RGB, SMPTE170M, Colours, to_picture
from keep.data.mux.copies import Copies
from keep.data.mux.fields import with_fields_of
from keep.data.mux.folder import FrameFolder
from keep.data.mux.layout import PLAIN, Codec, Layout, pick_codec, pixel_format
from keep.data.mux.source import TimedFrame, VideoSource
from keep.data.mux.tags import MP4, add_comment, container_options
from keep.degradation.codec import pad_to_even, require_encoder
from keep.utils.errors import UserError
from keep.utils.io import AtomicWrite, remove_leftovers

ENCODERS = {"h264": "libx264", "h265": "libx265", "ffv1": "ffv1"}
WRITTEN = frozenset({*MP4, ".mkv"})  # formats that keep frame times, rotation and tags; AVI, MPEG and WebM do not
Source = VideoSource | FrameFolder


class VideoWriter:
    """Writes a video with the frame times, tags and other streams of ``source``.

    A context manager: the complete file appears under its name when the block ends without an error, or with
    :meth:`finish` inside the block under :attr:`temporary` first.

    Args:
        path: the file; its suffix, one of ``WRITTEN``, selects the container.
        source: the source of the frames.
        size: (height, width) of the frames; an odd side is padded to even if the codec needs it.
        codec: ``h264``, ``h265``, ``ffv1`` (lossless RGB, in ``.mkv``), or ``auto``: by the layout.
        crf: constant rate factor of H.264 and H.265; lower gives better quality and larger files.
        preset: encoder speed of H.264 and H.265.
        layout: what is stored of each pixel, from :func:`keep.data.mux.layout.kept`.
        statement: words about the pictures for the file's comment, behind that of the source.

    Raises:
        UserError: the encoder is not available, or does not fit the container.
    """

    def __init__(
        self,
        path: str | Path,
        source: Source,
        size: tuple[int, int],
        codec: Codec = "h264",
        crf: int = 18,
        preset: str = "medium",
        layout: Layout = PLAIN,
        statement: str = "",
    ) -> None:
        self.path, self.source, self.layout = Path(path), source, layout
        codec = pick_codec(codec, layout)
        self._encoder, self._pix_fmt = ENCODERS[codec], pixel_format(codec, layout)
        require_encoder(self._encoder)
        suffix = self.path.suffix.lower()
        if suffix not in WRITTEN:
            raise UserError(
                f"{self.path}: {suffix or 'no suffix'} cannot be written, only {', '.join(sorted(WRITTEN))}"
            )
        if codec == "ffv1" and suffix in MP4:
            raise UserError(f"{self.path}: few players can read ffv1 in {suffix}; name an .mkv file")
        if not self.path.parent.is_dir():
            raise UserError(f"{self.path}: cannot be written: there is no folder {self.path.parent}")
        remove_leftovers(self.path)
        self._file = AtomicWrite(self.path)
        self._turns = round(source.rotation / 90) % 4
        self._first_dts = self._last_end = None
        self._start = 0
        self._durations: dict[int, int] = {}
        self._finished = False
        self._copies: Copies | None = None
        try:
            options = container_options(suffix, source.tags)
            self._output = av.open(ffmpeg_path(self._file.temporary), "w", options=options)
            self._stream = self._add_video(size, crf, preset)
            if isinstance(source, VideoSource):
                self._copies = Copies(source, self._output, self._stream, suffix)
            if statement:
                add_comment(self._output, statement)
        except (ValueError, av.error.FFmpegError) as error:
            self._discard()
            raise UserError(f"{self.path}: cannot write {codec} into a {self.path.suffix} file: {error}") from error
        except BaseException:
            self._discard()
            raise

    @property
    def temporary(self) -> Path:
        """The name of the file until the end of the block."""
        return self._file.temporary

    @property
    def refused(self) -> int:
        """Packets of sound and subtitles that were damaged in the input, and left out."""
        return self._copies.refused if self._copies else 0

    def check(self) -> None:
        """Check that the file can be written, by writing its header and removing it again.

        Raises:
            UserError: it cannot be written.
        """
        try:
            self._output.start_encoding()
        except (ValueError, av.error.FFmpegError) as error:
            raise self._failed(error) from error
        finally:
            self._discard()

    def __enter__(self) -> "VideoWriter":
        return self

    def write(self, image: np.ndarray, frame: TimedFrame) -> None:
        """Append ``image``, RGB, upright, with the time and duration of ``frame``.

        Args:
            image: uint8 (H, W, 3); uint16 or (H, W, 4) where the layout has more bits or alpha.
        """
        image = as_stored(image, self.source.rotation, self.source.mirrored)
        if "420" in self._pix_fmt:
            image = pad_to_even(image)
        colours = self._stream.codec_context
        matrix = colours.colorspace if colours.colorspace in MATRICES else SMPTE170M
        picture = to_picture(image, self._pix_fmt, matrix, colours.color_range == FULL)
        if self._pix_fmt.startswith(("yuv", "gray")):  # the converter keeps the tags of RGB
            picture.colorspace, picture.color_range = colours.colorspace, colours.color_range
        if frame.fields is not None:
            picture = with_fields_of(frame.fields, picture)
        picture.pts, picture.time_base = frame.pts, self.source.time_base
        if self._encoder == "ffv1" and self.source.pixel_aspect not in (None, 1):  # FFV1 ignores the stream's aspect
            picture = with_aspect(picture, self.source.pixel_aspect)
        self._durations[frame.pts] = frame.duration
        if self._last_end is None:
            self._start = frame.pts
        self._last_end = frame.pts + frame.duration
        try:
            if self._copies:
                self._copies.until(float(frame.pts * self.source.time_base))
            for packet in self._stream.encode(picture):
                self._mux(packet)
        except av.error.FFmpegError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Write the end of the file. It is complete then, and keeps its temporary name until the block ends.

        Raises:
            UserError: it cannot be written, or there are no frames.
        """
        if self._finished:
            return
        try:
            if self._last_end is None:
                raise UserError(f"{self.path}: there are no frames to write")
            packets = self._stream.encode(None)
            for packet in packets:
                # With only one or two frames, x265 outputs wrong decoding times.
                packet.dts = min(max(packet.dts, packet.pts - (self._last_end - self._start)), packet.pts)
            for packet in packets[:-1]:
                self._mux(packet)
            for packet in packets[-1:]:
                first = self._first_dts if self._first_dts is not None else packet.dts
                # MP4 computes a track's length from the last packet in decoding order.
                self._mux(packet, self._last_end - self._start - (packet.dts - first))
            if self._copies:
                self._copies.finish()
            self._output.close()
        except av.error.FFmpegError as error:
            raise self._failed(error) from error
        self._finished = True

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                self.finish()
                self._file.commit()
        finally:
            self._discard()

    def _failed(self, error: Any) -> UserError:
        return UserError(f"{self.path}: cannot be written: {getattr(error, 'strerror', None) or error}")

    def _mux(self, packet: Any, duration: int | None = None) -> None:
        if self._first_dts is None:
            self._first_dts = packet.dts
        own = self._durations.pop(packet.pts, 0)
        packet.duration = own if duration is None else max(duration, 1)
        self._output.mux(packet)

    def _add_video(self, size: tuple[int, int], crf: int, preset: str) -> Any:
        source = self.source
        options = {} if self._encoder == "ffv1" else {"crf": str(crf), "preset": preset}
        if self._encoder == "libx265":
            hdr = source.light and self.layout.transfer != "sdr"
            options["x265-params"] = "log-level=error" + (f":hdr10=1:{source.light}" if hdr else "")
        if source.keeps_fields:
            options["flags"] = "+ildct+ilme"
        stream: Any = self._output.add_stream(self._encoder, rate=source.fps, options=options)
        height, width = size[::-1] if self._turns % 2 else size
        even = 2 if "420" in self._pix_fmt else 1
        stream.height, stream.width = -(-height // even) * even, -(-width // even) * even
        stream.pix_fmt = self._pix_fmt
        context = stream.codec_context
        context.time_base = source.time_base
        if self._encoder == "libx265" and self.path.suffix.lower() in MP4:
            context.codec_tag = "hvc1"  # the tag that Apple's players need
        if source.pixel_aspect:
            context.sample_aspect_ratio = source.pixel_aspect
        tags = source.colours
        if source.layout.transfer != self.layout.transfer:  # tone-mapped
            tags = Colours(BT709, BT709, BT709, LIMITED)
        if self._pix_fmt.startswith("gray"):  # FFmpeg takes grey for full range, whatever its tag
            tags = replace(tags, color_range=FULL)
            context.color_range = FULL
        if self._pix_fmt.startswith("yuv"):
            context.colorspace = BT709 if tags.colorspace == RGB else tags.colorspace
            context.color_range = tags.color_range
        context.color_primaries, context.color_trc = tags.color_primaries, tags.color_trc
        if self._turns or source.mirrored:
            stream.set_display_rotation(source.rotation, hflip=source.mirrored)
        return stream

    def _discard(self) -> None:
        """Close everything and remove the unfinished file, if it was not renamed yet."""
        if self._copies:
            self._copies.close()
        try:
            output = getattr(self, "_output", None)
            if output is not None:
                output.close()
        except (av.error.FFmpegError, OSError, ValueError):
            pass  # the disk may be full: the file is removed anyway
        finally:
            self._file.discard()
