"""A web page that restores videos: upload, choose, watch, download.

    python -m keep.app                              # then open http://127.0.0.1:7860
    python -m keep.app -w KEEP --device cuda --detector RetinaFace --port 8000

The options of ``keep.restore`` are taken: those on the page are its defaults there, the others hold for all videos.
"""  # fmt: skip

import argparse
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keep import restore
from keep.config import cli
from keep.data.mux import VideoSource
from keep.data.video_io import probe, read_video
from keep.utils.errors import UserError
from keep.utils.logging import to_console

# Play, pause, seek and speed of one player are those of the other.
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


WHAT = "Upload a video and press Restore. Every face is found, followed and restored; sound and timing are kept."
NOT_HERE = ("frames", "fps", "compare", "plots", "overwrite", "aligned")  # options of keep.restore


def build(tools: Any, folder: Path, settings: Any = None) -> Any:
    """The page.

    Args:
        tools: the networks (:class:`keep.inference.video.Tools`).
        folder: where results are written.
        settings: :class:`keep.inference.video.Settings`: defaults of what is on the page, and what holds for all
            videos.

    Raises:
        UserError: Gradio is not installed.
    """
    gr = _gradio()
    from keep.inference.video import KeepNetwork, Settings, restore_video

    given = settings or Settings()
    sizes, own_size = scales(given.scale, tools.enhancer.scale if tools.enhancer else 1)
    weight = tools.network.options.get("w", 1) if isinstance(tools.network, KeepNetwork) else 1

    def run(
        video: str | None, aligned: bool, fidelity: float, match_color: bool, scale: str, smoothing: float, crf: int,
        progress: Any = gr.Progress(),  # noqa: B008, how Gradio hands it in
    ) -> tuple[Any, ...]:  # fmt: skip
        if not video:
            raise gr.Error("Choose a video first.", print_exception=False)
        mine = replace(tools)
        if isinstance(mine.network, KeepNetwork):
            mine.network = mine.network.with_fidelity(fidelity)
        chosen = replace(
            given, aligned=aligned, match_color=match_color, scale=sizes[scale], sigma=smoothing, crf=int(crf)
        )
        output = Path(tempfile.mkdtemp(dir=folder)) / f"{Path(video).stem}_restored.mp4"

        def tell(what: str, done: int, total: int | None, tracks: list[int]) -> None:
            who = f", track {', '.join(map(str, tracks))}" if tracks else ""
            progress((done, total), desc=f"{what}{who}", unit="frames")

        try:
            summary = restore_video(video, output, mine, chosen, tell)
        except (UserError, OSError) as error:
            raise gr.Error(str(error).replace(f"{video}: ", ""), print_exception=False) from error
        last = max(0, summary.frames - 1)
        middle, pair = last // 2, (video, str(output))
        return (
            gr.Video(value=str(output)), gr.Slider(value=middle, maximum=max(1, last), visible=last > 0),
            look(pair, middle), gr.DownloadButton(value=str(output), interactive=True), told(summary), pair,
        )  # fmt: skip

    def look(pair: tuple[str, str] | None, number: float) -> tuple[np.ndarray, np.ndarray] | None:
        return frame_pair(*pair, int(number)) if pair else None

    def clear() -> tuple[Any, ...]:
        return None, gr.Slider(visible=False), None, gr.DownloadButton(value=None, interactive=False), "", None

    with gr.Blocks(
        title="KEEP: face video restoration", analytics_enabled=False, delete_cache=(3600, 24 * 3600)
    ) as page:
        gr.Markdown(f"# KEEP: restore the faces of a video\n\n{WHAT}")
        result = gr.State(None)  # input and output of what is shown
        with gr.Row():
            before = gr.Video(label="Input", sources=["upload"], elem_id="before", min_width=300)
            after = gr.Video(label="Restored", interactive=False, elem_id="after", min_width=300)
        with gr.Row():
            with gr.Column():
                with gr.Row():
                    aligned = gr.Checkbox(label="Aligned faces", info="The frames are cropped faces already.")
                    match = gr.Checkbox(
                        label="Match colours", value=given.match_color,
                        info="Give restored faces the input's colours.",
                    )  # fmt: skip
                fidelity = gr.Slider(
                    0, 1, weight, step=0.05, label="Fidelity", info="0: most detail, 1: closest to the input"
                )
                with gr.Accordion("More", open=False):
                    scale = gr.Radio(list(sizes), value=own_size, label="Size of the output")
                    smoothing = gr.Slider(
                        0, max(10, given.sigma), given.sigma, step=0.5, label="Smoothing of landmarks",
                        info="σ in frames: higher is steadier, lower follows quick moves; 0: none",
                    )  # fmt: skip
                    crf = gr.Slider(0, 51, given.crf, step=1, label="CRF", info="Lower: better and a larger file")
                start = gr.Button("Restore", variant="primary", elem_id="restore")
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
                report = gr.Markdown(elem_id="report")
            with gr.Column():
                slider = gr.ImageSlider(label="Before and after", interactive=False, elem_id="compare")
                number = gr.Slider(0, 1, 0, step=1, label="Frame", visible=False, elem_id="frame")
        options = [aligned, fidelity, match, scale, smoothing, crf]
        results = [after, number, slider, download, report, result]
        start.click(run, [before, *options], results, concurrency_limit=1, show_progress_on=[after])
        number.input(look, [result, number], slider, show_progress="hidden", trigger_mode="always_last")
        before.change(clear, None, results, show_progress="hidden")  # what is shown is not of this video
    return page


def serve(page: Any, folder: Path, **options: Any) -> Any:
    """Launch what :func:`build` built for this ``folder``; ``options`` are those of Gradio's ``launch``."""
    return page.launch(js=SYNCHRONISE, footer_links=[], allowed_paths=[str(folder)], **options)


def told(summary: Any) -> str:
    """A :class:`keep.inference.video.Summary` as Markdown: what the user should know before what it cost."""
    first, *costs = (line.strip() for line in summary.lines(notes=False))
    return "\n\n".join([first.partition(": ")[2], *summary.notes, *costs])


def scales(given: float | None, own: float) -> tuple[dict[str, float], str]:
    """The sizes that the page offers, by label, and the label of its default.

    Args:
        given: of the command line, None without.
        own: of the background model, 1 without.
    """
    default = given or own
    return {f"{size:g}×": float(size) for size in sorted({1, 2, 4, own, default})}, f"{default:g}×"


def frame_pair(before: str, after: str, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame ``number`` of two videos, both in the size of the second."""
    first, second = (_frame(path, number) for path in (before, after))
    if first.shape != second.shape:
        first = cv2.resize(first, second.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return first, second


def _frame(path: str, number: int) -> np.ndarray:
    try:
        return read_video(path, min(number, probe(path).frames - 1), 1)[0]
    except UserError:  # damaged: decoded from the start, as far as it goes
        image = None
        for frame in VideoSource(path):
            image = frame.image
            if frame.index == number:
                break
        assert image is not None
        return image


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of ``keep.restore`` that the page takes, checked.

    Raises:
        UserError: a value that makes no sense, or an option that is none of the page's.
    """
    parser = restore.parser()
    parser.prog = "keep-app"
    args = parser.parse_args(["page", "-o", "page", *arguments])
    restore.check(args)
    for name in NOT_HERE:
        if getattr(args, name) != parser.get_default(name):
            raise UserError(f"--{name}: is no option of the web page; use keep-restore")
    if args.codec == "ffv1":
        raise UserError("--codec: no browser plays ffv1; use h264 or h265 for the web page")
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


def command(argv: Sequence[str] | None) -> None:
    p = cli.Parser(
        prog="keep-app",
        description="A web page that restores videos.",
        epilog="Further options are those of keep-restore (python -m keep.restore -h), save IN, OUT and "
        + ", ".join(f"--{name}" for name in NOT_HERE),
    )
    p.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 for all (default 127.0.0.1)")
    p.add_argument("--port", type=int, default=7860, help="its port (default 7860)")
    p.add_argument("--share", action="store_true", help="a public link through Gradio's servers")
    own, rest = p.parse_known_args(argv)
    _gradio()
    args = options(rest)
    check_address(own.host, own.port)
    to_console()
    signal.signal(signal.SIGTERM, restore.stop)
    tools = restore.build_tools(args)
    with tempfile.TemporaryDirectory(prefix="keep-app-") as folder:
        page = build(tools, Path(folder), restore.settings_of(args))
        serve(page, Path(folder), server_name=own.host, server_port=own.port, share=own.share)


def _gradio() -> Any:
    try:
        import gradio  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("the web page needs Gradio: pip install keep-vfsr[app]") from error
    return gradio


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(command, argv)


if __name__ == "__main__":
    sys.exit(main())
