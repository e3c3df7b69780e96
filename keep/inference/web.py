"""The web page that restores videos: upload, choose options, watch, download."""

import argparse
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep.data.mux import VideoSource
from keep.data.video_io import probe, read_video
from keep.inference.exported import ExportedNetwork
from keep.inference.video import KeepNetwork, Settings, Summary, Tools, restore_video
from keep.inference.video import options as command_line
from keep.inference.video.settings import Progress
from keep.utils.errors import UserError

# Both players share play, pause, position and speed.
SYNCHRONISE = """
() => {
  const other = video => {
    const from = video.closest('#before, #after');
    return from && document.querySelector((from.id === 'before' ? '#after' : '#before') + ' video');
  };
  const follow = (event, act) => document.addEventListener(event, e => {
    const twin = e.target.tagName === 'VIDEO' && other(e.target);
    if (twin) act(e.target, twin);
  }, true);
  const seek = (a, b) => { if (Math.abs(a.currentTime - b.currentTime) > 0.08) b.currentTime = a.currentTime; };
  follow('play', (a, b) => { seek(a, b); b.muted = true; if (b.paused) b.play(); });
  follow('pause', (a, b) => { if (!b.paused) b.pause(); seek(a, b); });
  follow('seeked', seek);
  follow('ratechange', (a, b) => { if (b.playbackRate !== a.playbackRate) b.playbackRate = a.playbackRate; });
}
"""

ABOUT = "Upload a video and press Restore. Every face is found, tracked and restored; sound and timing are kept."
HINT = "Options like --codec are set where this page is started, if they are not above."
NOT_ON_PAGE = (
    "frames", "fps", "compare", "plots", "overwrite", "aligned", "engine", "ray-cpus", "ray-gpus"
)  # fmt: skip  # options of keep.restore


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of ``keep.restore`` that apply to the page, checked.

    Raises:
        UserError: a value out of range, or an option that does not apply to the page.
    """
    parser = command_line.parser("keep-app")
    args = parser.parse_args(["page", "-o", "page", *arguments])
    for name in NOT_ON_PAGE:
        key = name.replace("-", "_")
        if getattr(args, key) != parser.get_default(key):
            raise UserError(f"--{name}: is not an option of the web page; use keep-restore")
    command_line.check(args)
    if args.codec == "auto":  # few browsers play H.265
        args.codec = "h264"
    if args.codec == "ffv1":
        raise UserError("--codec: browsers cannot play ffv1; use h264 or h265 for the web page")
    return args


def check_address(host: str, port: int) -> None:
    """Raise UserError unless a page can be served there now."""
    if not 0 < port < 65536:
        raise UserError(f"--port: must be from 1 to 65535, not {port}")
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise UserError(f"{host}:{port} cannot be served: {reason}; choose another --host or --port") from error


def run(args: argparse.Namespace, **options: Any) -> None:
    """Build the page and serve it until it is stopped. ``options`` are those of Gradio's ``launch``."""
    tools = command_line.build_tools(args)
    with tempfile.TemporaryDirectory(prefix="keep-app-") as folder:
        serve(build(tools, Path(folder), command_line.settings_of(args)), Path(folder), **options)


def build(tools: Tools, folder: Path, settings: Settings | None = None) -> Any:
    """The page, a ``gradio.Blocks``.

    Args:
        tools: the networks.
        folder: where results are written.
        settings: defaults of the options on the page; the other settings hold for all videos.

    Raises:
        UserError: Gradio is not installed.
    """
    gr = import_gradio()
    defaults = settings or Settings()
    sizes, default_size = scales(defaults.scale, tools.enhancer.scale if tools.enhancer else 1)
    weight = tools.network.fidelity if isinstance(tools.network, KeepNetwork | ExportedNetwork) else 1

    def run(
        video: str | None, aligned: bool, fidelity: float, match_color: bool, auto: bool, scale: str, smoothing: float,
        crf: int,
        progress: Any = gr.Progress(),  # noqa: B008, Gradio finds its progress bar by this default
    ) -> tuple[Any, ...]:  # fmt: skip
        if not video:
            raise gr.Error("Choose a video first.", print_exception=False)
        chosen = replace(
            defaults, aligned=aligned, match_color=match_color, auto=auto, scale=sizes[scale], sigma=smoothing,
            crf=int(crf),
        )  # fmt: skip
        output = Path(tempfile.mkdtemp(dir=folder)) / f"{Path(video).stem}_restored.mp4"
        try:
            summary = restore_video(video, output, with_fidelity(tools, fidelity), chosen, reporter(progress), gr.Info)
        except (UserError, OSError) as error:
            raise gr.Error(str(error).replace(f"{video}: ", ""), print_exception=False) from error
        last = max(0, summary.frames - 1)
        middle, pair = last // 2, (video, str(output))
        return (
            gr.Video(value=str(output)), gr.Slider(value=middle, maximum=max(1, last), visible=last > 0),
            look(pair, middle), gr.DownloadButton(value=str(output), interactive=True), describe(summary), pair,
        )  # fmt: skip

    def look(pair: tuple[str, str] | None, number: float) -> tuple[np.ndarray, np.ndarray] | None:
        return frame_pair(*pair, int(number)) if pair else None

    def clear() -> tuple[Any, ...]:
        return None, gr.Slider(visible=False), None, gr.DownloadButton(value=None, interactive=False), "", None

    with gr.Blocks(
        title="KEEP: face video restoration", analytics_enabled=False, delete_cache=(3600, 24 * 3600)
    ) as page:
        gr.Markdown(f"# KEEP: restore the faces of a video\n\n{ABOUT}")
        result = gr.State(None)  # paths of the input and output that are shown
        with gr.Row():
            before = gr.Video(label="Input", sources=["upload"], elem_id="before", min_width=300)
            after = gr.Video(label="Restored", interactive=False, elem_id="after", min_width=300)
        with gr.Row():
            with gr.Column():
                controls = add_controls(gr, defaults, weight, list(sizes), default_size)
                start = gr.Button("Restore", variant="primary", elem_id="restore")
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
                report = gr.Markdown(elem_id="report")
            with gr.Column():
                slider = gr.ImageSlider(label="Before and after", interactive=False, elem_id="compare")
                number = gr.Slider(0, 1, 0, step=1, label="Frame", visible=False, elem_id="frame")
        results = [after, number, slider, download, report, result]
        start.click(run, [before, *controls], results, concurrency_limit=1, show_progress_on=[after])
        number.input(look, [result, number], slider, show_progress="hidden", trigger_mode="always_last")
        before.change(clear, None, results, show_progress="hidden")  # the results shown belong to another video
    return page


def add_controls(gr: Any, defaults: Settings, fidelity: float, sizes: list[str], default_size: str) -> list[Any]:
    """The options on the page, in the order of :func:`build`'s ``run``."""
    with gr.Row():
        aligned = gr.Checkbox(label="Aligned faces", info="The frames are cropped faces already.")
        match = gr.Checkbox(
            label="Match colours", value=defaults.match_color, info="Give restored faces the input's colours."
        )
    weight = gr.Slider(0, 1, fidelity, step=0.05, label="Fidelity", info="0: most detail, 1: closest to the input")
    with gr.Accordion("More", open=False):
        auto = gr.Checkbox(
            label="Keep sharp faces (--auto)", value=defaults.auto,
            info="Leave faces that are sharp already as they are, or blend them with the input.",
        )  # fmt: skip
        scale = gr.Radio(sizes, value=default_size, label="Size of the output")
        smoothing = gr.Slider(
            0, max(10, defaults.sigma), defaults.sigma, step=0.5, label="Smoothing of landmarks",
            info="σ in frames: higher is steadier, lower follows fast motion; 0: none",
        )  # fmt: skip
        crf = gr.Slider(0, 51, defaults.crf, step=1, label="CRF", info="Lower: better quality and a larger file")
    return [aligned, weight, match, auto, scale, smoothing, crf]


def serve(page: Any, folder: Path, **options: Any) -> Any:
    """Launch what :func:`build` built for this ``folder``. ``options`` are those of Gradio's ``launch``."""
    return page.launch(js=SYNCHRONISE, footer_links=[], allowed_paths=[str(folder)], **options)


def with_fidelity(tools: Tools, fidelity: float) -> Tools:
    """The same tools with another weight of CFT."""
    if not isinstance(tools.network, KeepNetwork | ExportedNetwork):
        return tools
    return replace(tools, network=tools.network.with_fidelity(fidelity))


def reporter(progress: Any) -> Progress:
    """A :class:`Progress` that moves Gradio's progress bar."""

    def report(what: str, done: int, total: int | None, tracks: list[int]) -> None:
        suffix = f", track {', '.join(map(str, tracks))}" if tracks else ""
        progress((done, total), desc=f"{what}{suffix}", unit="frames")

    return report


def describe(summary: Summary) -> str:
    """A summary as Markdown: counts, then what is not as in the input, then notes, then costs."""
    first, *costs = (line.strip() for line in summary.lines(notes=False))
    said = [*summary.preflight, *summary.notes]
    hint = [HINT] if any("--" in line for line in said) else []
    return "\n\n".join([first.partition(": ")[2], *said, *hint, *costs])


def scales(given: float | None, background: float) -> tuple[dict[str, float], str]:
    """The output sizes offered on the page, by label, and the label of the default.

    Args:
        given: ``--scale`` of the command line, or None.
        background: scale of the background model; 1 without one.
    """
    default = given or background
    return {f"{size:g}×": float(size) for size in sorted({1, 2, 4, background, default})}, f"{default:g}×"


def frame_pair(before: str, after: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame ``number`` of two videos, both in the size of the second."""
    first, second = (_frame(path, number) for path in (before, after))
    if first.shape != second.shape:
        first = cv2.resize(first, second.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return first, second


def _frame(path: str, number: int) -> np.ndarray:
    try:
        return read_video(path, min(number, probe(path).frames - 1), 1)[0]
    except UserError:  # a damaged file: decode from the start, as far as possible
        image = None
        for frame in VideoSource(path):
            image = frame.image
            if frame.index == number:
                break
        assert image is not None
        return image


def import_gradio() -> Any:
    """The ``gradio`` module.

    Raises:
        UserError: it is not installed.
    """
    try:
        import gradio  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("the web page needs Gradio: pip install keep-vfsr[app]") from error
    return gradio
