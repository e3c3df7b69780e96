"""The node: a path in, a path out. Frames are decoded, restored and encoded one window at a time."""

from pathlib import Path
from typing import Any

from keep.comfyui.host import reporter
from keep.data.mux import WRITTEN
from keep.inference.video import options, restore_video
from keep.inference.video.outputs import refuse_existing, refuse_overwriting
from keep.utils.errors import UserError


class RestoreVideo:
    """Restores the faces of a video file, as ``keep-restore`` does."""

    CATEGORY = "KEEP"
    FUNCTION = "restore"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("path", "report")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802, the host's name
        fidelity = {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}
        return {
            "required": {
                "video": ("STRING", {"default": "", "tooltip": "path of the video to restore"}),
                "output": ("STRING", {"default": "", "tooltip": "path of the video to write"}),
            },
            "optional": {
                "weights": ("STRING", {"default": "lite", "tooltip": "a name or a file, as -w of keep-restore"}),
                "fidelity": ("FLOAT", fidelity | {"tooltip": "0: most detail, 1: closest to the input"}),
                "auto": ("BOOLEAN", {"default": False, "tooltip": "keep faces that are sharp already"}),
                "aligned": ("BOOLEAN", {"default": False, "tooltip": "the frames are aligned faces already"}),
                "overwrite": ("BOOLEAN", {"default": False, "tooltip": "replace an existing output"}),
                "device": ("STRING", {"default": "auto", "tooltip": "auto, cpu, cuda or cuda:N"}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, video: str, **_: Any) -> float:  # noqa: N802, the host's name
        """The time of the file's last change: the host runs the node again when it differs. NaN: always."""
        file = Path(video)
        return file.stat().st_mtime if file.is_file() else float("nan")

    def restore(
        self, video: str, output: str, weights: str = "lite", fidelity: float = 1.0, auto: bool = False,
        aligned: bool = False, overwrite: bool = False, device: str = "auto",
    ) -> tuple[str, str]:  # fmt: skip
        """Restore one video; the path written and the summary.

        Raises:
            RuntimeError: bad input, in one line; nothing is left half-written.
        """
        flags = [f"--{name}" for name, on in {"auto": auto, "aligned": aligned, "overwrite": overwrite}.items() if on]
        values = [f"--output={output}", f"--weights={weights}", f"--fidelity={fidelity}", f"--device={device}"]
        try:
            if not video:
                raise UserError("video: name a video to restore")
            return _run(Path(video), Path(output), [*values, *flags, "--", video])
        except (UserError, OSError) as error:
            raise RuntimeError(" ".join(str(error).split())) from None


def _run(video: Path, output: Path, argv: list[str]) -> tuple[str, str]:
    if not video.is_file():
        raise UserError(f"video: {video} is not a file; name a video to restore")
    if output.suffix.lower() not in WRITTEN:
        raise UserError(f"output: {output} names no video; end it with one of {', '.join(sorted(WRITTEN))}")
    args = options.parse(argv)
    settings = options.settings_of(args)
    refuse_overwriting([(video, output)], settings)
    if not args.overwrite:
        refuse_existing(output, settings)
    summary = restore_video(video, output, options.build_tools(args), settings, reporter())
    return str(output), "\n".join(summary.lines())
