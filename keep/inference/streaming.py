"""Restores a clip of any length in constant memory, without resetting the state.

Frames are processed in windows. E_L, flow and gains are computed for a window at once; the recurrence of Algorithm 1
runs frame by frame and continues from window to window (the public code resets it every 20 frames).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import torch
from torch import Tensor

from keep.archs.confidence import ConfidenceHead, ErrorBands, blend
from keep.archs.keep import KEEP, KalmanState, KalmanStep
from keep.utils.errors import UserError

WINDOW = 8
CONTEXT = 7  # eight frames with the current one, the clip length of the public training


@dataclass
class RestoredFrame:
    """One frame.

    Attributes:
        output: ŷ_t (B, 3, S, S) in about [-1, 1], with ``min_confidence`` blended with the input.
        gain: K_t (B, 1, h, w), unused at t = 1.
        evidence: the maps of :data:`keep.archs.evidence.EVIDENCE` (B, maps, S/8, S/8), if asked for.
        bands: with an error model, the lowest, middle and highest expected error of each block of ŷ_t, calibrated
            (:class:`keep.archs.confidence.ErrorBands`).
    """

    output: Tensor
    gain: Tensor
    evidence: Tensor | None = None
    bands: ErrorBands | None = None

    @property
    def error(self) -> Tensor | None:
        """The middle of the expected error of luma (B, 1, S/8, S/8), in grey levels of 255; None without a model."""
        return None if self.bands is None else self.bands.middle[:, :1]


class Streamer:
    """Restores a clip window by window, from its first frame on.

    State between windows: ŷ_{t-1} and CFA's features (:class:`KalmanState`), the last LQ frame for the flow, z̃_1, and
    the last z̃: one for a ``causal`` network, ``context`` of them for a ``clip`` network.

    For a ``causal`` network the results equal those of the complete clip. The gains of a ``clip`` network depend on all
    frames of its clip. To get the gain of frame t, the filter runs on the short clip [z̃_1, z̃_{t-context} … z̃_t]; the
    gain of its last frame is used. So gains do not jump at window borders, and results do not depend on the windows.
    For gains over the complete clip, call the network itself.

    Args:
        net: the network, in evaluation mode.
        context: number of earlier frames that determine a gain of a ``clip`` network.
        w: fidelity weight of CFT, 0 to 1.
        use_cft: apply CFT.
        use_cfa: apply CFA.
        evidence: also measure what supports the output. It changes nothing else.
        confidence: the error model of the network, which reads the evidence; None: no error is predicted.
        min_confidence: go back to the input where the error model says that the output is less likely than this to
            show what was there; 0: nowhere. The recurrence goes on from the output.

    Raises:
        UserError: ``min_confidence`` without an error model.
    """

    def __init__(
        self,
        net: KEEP,
        *,
        context: int = CONTEXT,
        w: float = 1.0,
        use_cft: bool = True,
        use_cfa: bool = True,
        evidence: bool = False,
        confidence: ConfidenceHead | None = None,
        min_confidence: float = 0.0,
    ) -> None:
        if min_confidence and confidence is None:
            raise UserError("min_confidence needs the error model of the network")
        self.net, self.w, self.use_cft, self.use_cfa = net, w, use_cft, use_cfa
        self.evidence, self.confidence = evidence or confidence is not None, confidence
        self.min_confidence = min_confidence
        self.context = 1 if net.kalman_filter.temporal == "causal" else context
        self.frames = 0
        """Number of frames restored so far."""
        self._state: KalmanState | None = None
        self._last: Tensor | None = None  # LQ frame t - 1, (B, 1, 3, S, S)
        self._first: Tensor | None = None  # z̃_1, (B, 1, C, h, w)
        self._history: Tensor | None = None  # the last z̃, (B, ≤ context, C, h, w)

    @torch.no_grad()
    def push(self, lq: Tensor, flows: Tensor | None = None, sizes: Tensor | None = None) -> list[RestoredFrame]:
        """Restore the next frames of the clip.

        Args:
            lq: (B, n, 3, S, S) in [-1, 1], n ≥ 1, upsampled to the output's size.
            flows: flow of each of these frames to the one before it, (B, n, 2, S, S) in pixels. The first frame of
                the clip has none: (B, n - 1, 2, S, S) at the first call. None: estimated.
            sizes: side of the face in the input over S, (B, n), for the evidence; None: 1.

        Raises:
            UserError: frames or flows have another size, or there are neither flows nor a flow estimator.
        """
        net = self.net
        start = int(self.frames == 0)  # the clip's first frame has no flow
        self._check(lq, flows, start)
        z, features = net.observe(lq.to(net.codebook.embedding.weight.dtype))
        gains = self._gains(z)
        if flows is None:
            flows = net.estimate_flows(lq if self._last is None else torch.cat([self._last, lq], dim=1))
        steps: list[KalmanStep] = []
        for i in range(lq.shape[1]):
            step, self._state = net.step(
                z[:, i],
                gains[:, i],
                {scale: feature[:, i] for scale, feature in features.items()},
                flow=flows[:, i - start] if self._state is not None else None,
                state=self._state,
                w=self.w,
                use_cft=self.use_cft,
                use_cfa=self.use_cfa,
            )
            steps.append(step)
        restored = [RestoredFrame(step.output, gains[:, i]) for i, step in enumerate(steps)]
        if self.evidence:
            self._judge(restored, lq, steps, z, gains, flows, sizes)
        self._last = lq[:, -1:].clone()  # a view would keep the memory of all frames
        self.frames += lq.shape[1]
        return restored

    def _judge(
        self,
        restored: list[RestoredFrame],
        lq: Tensor,
        steps: list[KalmanStep],
        z: Tensor,
        gains: Tensor,
        flows: Tensor,
        sizes: Tensor | None,
    ) -> None:
        """Add the evidence (B, n, maps, b, b), and the error that the model predicts from it; go back to the input."""
        evidence = self.net.evidence(lq, steps, z, gains, flows, self._last, sizes)
        for frame, maps in zip(restored, evidence.unbind(1), strict=True):
            frame.evidence = maps
        if self.confidence is None:
            return
        bands = self.confidence.bands(evidence.flatten(0, 1))
        ends = [x.unflatten(0, evidence.shape[:2]).unbind(1) for x in (bands.low, bands.middle, bands.high)]
        for frame, given, low, middle, high in zip(restored, lq.unbind(1), *ends, strict=True):
            frame.bands = ErrorBands(low, middle, high, bands.tails)
            if self.min_confidence:
                frame.output = blend(frame.output, given, frame.bands.confidence(), self.min_confidence)

    def _gains(self, z: Tensor) -> Tensor:
        """K of a window (B, n, 1, h, w), from its z̃ (B, n, C, h, w) and the history."""
        if self._first is None or self._history is None:
            self._first, self._history = z[:, :1].clone(), z[:, :0]
        seen = torch.cat([self._history, z], dim=1)
        if self.net.kalman_filter.temporal == "causal":
            gains = self._causal_gains(z, seen)
        else:
            gains = self._sliding_gains(seen, z.shape[1])
        self._history = seen[:, max(0, seen.shape[1] - self.context) :].clone()
        return gains

    def _causal_gains(self, z: Tensor, seen: Tensor) -> Tensor:
        """φ(z̃_1, z̃_{t-1}, z̃_t) for all frames of ``z`` at once; at t = 1 all three are z̃_1."""
        assert self._first is not None
        previous = torch.cat([self._first, seen], dim=1)[:, -z.shape[1] - 1 : -1]
        first = self._first.expand_as(z)
        gains = self.net.kalman_filter.step(first.flatten(0, 1), previous.flatten(0, 1), z.flatten(0, 1))
        return gains.unflatten(0, z.shape[:2])

    def _sliding_gains(self, seen: Tensor, n: int) -> Tensor:
        """For each of the last ``n`` frames of ``seen``: the last gain of the clip [z̃_1, its context, the frame]."""
        assert self._first is not None
        length = seen.shape[1]
        clips = []
        for i in range(length - n, length):
            start = max(0, i - self.context)
            clip = seen[:, start : i + 1]
            begins_at = self.frames - (length - n) + start
            clips.append(clip if begins_at == 0 else torch.cat([self._first, clip], dim=1))
        gains = []
        for _, same in groupby(clips, key=lambda clip: clip.shape[1]):  # first frames have shorter clips
            batch = list(same)
            last = self.net.kalman_filter(torch.cat(batch))[:, -1:]
            gains += last.chunk(len(batch))
        return torch.cat(gains, dim=1)

    def _check(self, lq: Tensor, flows: Tensor | None, start: int) -> None:
        size = self.net.image_size
        if lq.dim() != 5 or lq.shape[1] < 1 or lq.shape[2:] != (3, size, size):
            raise UserError(f"KEEP restores frames (B, n, 3, {size}, {size}) with n ≥ 1; got {tuple(lq.shape)}")
        b, n = lq.shape[:2]
        if flows is not None and flows.shape != (b, n - start, 2, size, size):
            raise UserError(
                f"flows of these frames must be ({b}, {n - start}, 2, {size}, {size}); got {tuple(flows.shape)}"
            )
        if self._last is not None and b != self._last.shape[0]:
            raise UserError(f"the clip started with a batch of {self._last.shape[0]}; this batch has {b}")


def stream(
    net: KEEP,
    frames: Iterable[Tensor],
    flows: Iterable[Tensor] | None = None,
    *,
    window: int = WINDOW,
    context: int = CONTEXT,
    w: float = 1.0,
    use_cft: bool = True,
    use_cfa: bool = True,
    evidence: bool = False,
    confidence: ConfidenceHead | None = None,
    min_confidence: float = 0.0,
) -> Iterator[RestoredFrame]:
    """Restore a clip of any length, frame by frame. At most ``window`` frames are read ahead.

    Args:
        net: the network, in evaluation mode.
        frames: LQ frames (B, 3, S, S) in [-1, 1], upsampled to the output's size.
        flows: flow of every frame but the first to the one before it, (B, 2, S, S); None: estimated.
        window: frames for which E_L, flow and gains are computed at once; more is faster but needs more memory.
        context: see :class:`Streamer`.
        w: fidelity weight of CFT.
        use_cft: apply CFT.
        use_cfa: apply CFA.
        evidence: see :class:`Streamer`.
        confidence: see :class:`Streamer`.
        min_confidence: see :class:`Streamer`.

    Yields:
        a :class:`RestoredFrame` for every frame.
    """
    if window < 1 or context < 1:
        raise UserError(f"window and context must be at least 1 frame; got {window} and {context}")
    streamer = Streamer(
        net, context=context, w=w, use_cft=use_cft, use_cfa=use_cfa, evidence=evidence, confidence=confidence,
        min_confidence=min_confidence,
    )  # fmt: skip
    source, flow_source = iter(frames), None if flows is None else iter(flows)
    while batch := list(islice(source, window)):
        given = None
        if flow_source is not None:
            given = list(islice(flow_source, len(batch) - int(streamer.frames == 0)))
            given = (
                torch.stack(given, dim=1) if given else batch[0].new_zeros(len(batch[0]), 0, 2, *batch[0].shape[-2:])
            )
        yield from streamer.push(torch.stack(batch, dim=1), given)
