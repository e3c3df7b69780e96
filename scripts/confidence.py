"""Make and score the error model of a network, in one command that can be stopped and repeated.

    python -m scripts.confidence                                # of lite: all steps
    python -m scripts.confidence --steps calibrate score        # again from the maps and the trained head

Steps: `collect` restores the clips and keeps evidence and true errors; `train` runs `keep.train`; `calibrate` fits the
intervals on people that the head has not seen, and writes NAME.confidence.safetensors beside the weights; `score`
writes results.json, table.md and pictures for people that neither network has seen; `curve` scores --min-confidence.
"""  # fmt: skip

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from keep import train
from keep.archs.confidence import blend
from keep.archs.keep import KEEP
from keep.config import arguments
from keep.config.cli import Parser, run
from keep.config.plugins import import_registered
from keep.config.reading import load, read_yaml
from keep.config.registry import DATASETS, METRICS, dump
from keep.config.schema import TrainConfig
from keep.data.evidence import read_maps
from keep.data.frames import to_float, to_uint8
from keep.evaluation.confidence.calibrate import calibrate
from keep.evaluation.confidence.collect import Collection, positions, restore_clip
from keep.evaluation.confidence.figures import curve_figure, map_figure, reliability_figure
from keep.evaluation.confidence.score import figures, pooled, table
from keep.inference.confidence import load_head, network_hash, path_of, save_confidence
from keep.inference.fast import accelerate
from keep.inference.streaming import Streamer
from keep.inference.weights import find, load_keep
from keep.losses.perceptual import LPIPSDistance
from keep.metrics.base import Clip
from keep.utils.devices import pick_device
from keep.utils.dtypes import pick_dtype
from keep.utils.io import write_file
from keep.utils.weight_files import fill, network_state
from keep.utils.weight_files import load as load_weights

STEPS = ("collect", "train", "calibrate", "score", "curve")
THRESHOLDS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
CURVE_FRAMES = 3  # of each clip; the last one is scored


def main(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    import_registered()
    torch.set_num_threads(args.threads)
    job = Job(args)
    for step in args.steps:
        print(f"{step} …", flush=True)
        getattr(job, step)()
    return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    p = Parser(prog="scripts.confidence", description="Make and score the error model of a network.")
    p.add_argument("-w", "--weights", default="lite", help="the network's weights: a file or a name (lite)")
    p.add_argument(
        "-opt", "--options", type=Path, default=Path("options/lite/confidence.yml"), help="options of keep.train"
    )
    p.add_argument(
        "--clips", type=Path, default=Path("options/lite/_confidence_clips.yml"), help="the clips: train, dev"
    )
    p.add_argument("--count", type=arguments.count, default=320, help="clips to restore for training and calibration")
    p.add_argument(
        "--metrics", type=Path, default=Path("options/nano/_metrics.yml"), help="PSNR, LPIPS and IDS with their files"
    )
    p.add_argument("--lpips", type=Path, default=Path("weights/squeezenet1_1.pth"), help="backbone of LPIPS (squeeze)")
    p.add_argument("--maps", type=Path, default=Path("datasets/confidence_lite"), help="folder of the collected maps")
    p.add_argument("--threads", type=arguments.count, default=1, help="CPU threads (1)")
    p.add_argument("--device", default="auto", help="auto, cpu, cuda (auto)")
    p.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS, help="what to do (all)")
    return p.parse_args(argv)


class Job:
    """The steps, and what they share."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.clips = args, read_yaml(args.clips).data
        self.config = load(args.options, [], TrainConfig)
        self.folder = self.config.root / self.config.name
        self.hash = network_hash(args.weights)
        self.head_path = path_of(find(args.weights))
        self._loaded: tuple[KEEP, LPIPSDistance] | None = None

    def networks(self) -> tuple[KEEP, LPIPSDistance]:
        """The restorer in the precision that users get, and the perceptual distance."""
        if self._loaded is None:
            device = pick_device(self.args.device)
            net = accelerate(load_keep(self.args.weights).to(device), pick_dtype("auto", device))
            distance = LPIPSDistance("squeeze", self.args.lpips).to(device).to(memory_format=torch.channels_last)
            self._loaded = net, distance
        return self._loaded

    def collect(self) -> None:
        collection = Collection(*self.networks(), self.args.maps, self.hash)
        data = DATASETS.spec(self.clips["train"]).build()
        collection.add(data, list(positions(data, 0, self.args.count)), 0)
        for split, spec in self.clips["dev"].items():
            data = DATASETS.spec(spec).build()
            collection.add(data, [(i, f"dev/{split}") for i in range(len(data))], 0)

    def train(self) -> None:
        root = self.args.maps / "train"
        train.command(["-opt", str(self.args.options), "--set", f"data.train.root={root}"])

    def calibrate(self) -> None:
        content = load_weights(self.folder / "models/net_latest.pth")
        head = self.config.model.options["net"].build()
        trained = dict(network_state(content, self.folder)[0])
        fill(head, {**trained, "edges": head.edges, "shift": head.shift}, self.folder)
        clips = [read_maps(path) for path in sorted((self.args.maps / "calibration").rglob("*.npz"))]
        found = calibrate(head, clips)
        save_confidence(head, dump(self.config.model.options["net"]), self.head_path, self.hash, found)
        print(f"{self.head_path}: {found}")

    def score(self) -> None:
        head, _ = load_head(self.head_path)
        maps = {split: self.args.maps / "dev" / split for split in self.clips["dev"]}
        splits = {split: [read_maps(p) for p in sorted(folder.glob("*.npz"))] for split, folder in maps.items()}
        result = figures(head, splits)
        write_file(self.folder / "results.json", json.dumps(result, indent=1))
        write_file(self.folder / "table.md", table(result))
        print(table(result))
        clips = [clip for own in splits.values() for clip in own]
        for number, target in enumerate(("luma", "lpips")):
            bands, true = pooled(head, clips, number)
            reliability_figure(bands, true, head.tails, self.folder / f"reliability_{target}.png")
        self._pictures(result["luma"]["clips"])

    def _pictures(self, clips: list[dict[str, Any]]) -> None:
        """A good map, a bad one and a wrong one: best and worst order, and the least share of blocks held."""
        order = sorted(clips, key=lambda c: c["spearman"])
        chosen = {"good": order[-1], "bad": order[0], "wrong": min(clips, key=lambda c: c["held"])}
        rows = []
        for name, clip in chosen.items():
            row = self._row(clip["clip"], clip["split"])
            facts = f"{name}: {clip['split']}\nrank {clip['spearman']:.2f}, held {100 * clip['held']:.0f} %"
            rows.append({**row, "name": facts})
        map_figure(rows, self.folder / "maps.jpg", "expected and true error: a good, a bad and a wrong map")

    def _row(self, name: str, split: str) -> dict[str, Any]:
        data = DATASETS.spec(self.clips["dev"][split]).build()
        sample = data[0, next(i for i, clip in enumerate(data.clips) if clip.name == name)]
        evidence, errors, output = restore_clip(*self.networks(), sample)
        head, _ = load_head(self.head_path)
        bands = head.bands(torch.from_numpy(evidence[-1:]))
        pictures = [sample["lq"][-1], to_uint8(output[-1]), sample["gt"][-1]]
        names = ("input", "output", "truth")
        return {
            **{k: v.permute(1, 2, 0).numpy() for k, v in zip(names, pictures, strict=True)},
            "gain": evidence[-1, 0],
            "expected": bands.middle[0, 0].numpy(),
            "true": errors[-1, 0],
        }

    @torch.no_grad()
    def curve(self) -> None:
        specs = {s if isinstance(s, str) else s["type"]: s for s in read_yaml(self.args.metrics).data["metrics"]}
        metrics = [METRICS.spec(specs[name]).build() for name in ("PSNR", "LPIPS", "IDS")]
        head, (net, _) = load_head(self.head_path)[0], self.networks()
        values: dict[tuple[str, float], list[list[float]]] = {}
        for split, spec in self.clips["dev"].items():
            data = DATASETS.spec({**spec, "max_frames": CURVE_FRAMES}).build()
            for i in range(len(data)):
                sample = data[0, i]
                lq, truth = to_float(sample["lq"]), Clip(sample["gt"][-1:], "ground truth")
                frame = Streamer(net, confidence=head.to(lq.device)).push(lq[None])[-1]
                assert frame.bands is not None
                for least in THRESHOLDS:
                    mixed = to_uint8(blend(frame.output, lq[-1:], frame.bands.confidence(), least))
                    found = [m.score(m(Clip(mixed, "output"), truth)) for m in metrics]
                    values.setdefault((split, least), []).append(found)
        points = []
        for least in THRESHOLDS:
            of_all = np.nanmean([row for (_, at), rows in values.items() if at == least for row in rows], axis=0)
            points.append({"least": least, **{m.name: float(v) for m, v in zip(metrics, of_all, strict=True)}})
        by_split = {f"{s} {t}": np.nanmean(rows, axis=0).tolist() for (s, t), rows in values.items()}
        write_file(self.folder / "curve.json", json.dumps({"all": points, "splits": by_split}, indent=1))
        curve_figure(points, self.folder / "min_confidence.png")
        print("\n".join(str(point) for point in points))


if __name__ == "__main__":
    sys.exit(run(main))
