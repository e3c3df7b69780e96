"""Reading training clips of videos: torchcodec beside PyAV, alternating in one run.

``python -m scripts.bench.readers FOLDER`` reads the same clips by both, compares their frames, and prints the CPU time
of each and their ratio. Needs the extra ``torchcodec``.
"""

import argparse
import time

import numpy as np

from keep.config import arguments
from keep.data.clips import VideoClips


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", help="folder of videos")
    parser.add_argument("--clips", type=arguments.count, default=40, help="how many clips to read")
    parser.add_argument("--videos", type=arguments.count, default=10, help="from how many videos")
    parser.add_argument("--length", type=arguments.count, default=8, help="frames of a clip")
    args = parser.parse_args()
    given = {"clip_length": args.length, "on_bad": "skip"}
    sets = {reader: VideoClips(args.folder, reader=reader, **given) for reader in ("pyav", "torchcodec")}
    times: dict[str, list[float]] = {reader: [] for reader in sets}
    rng, differ = np.random.default_rng(0), 0
    videos = sets["pyav"].clips[: args.videos]
    for number in range(-len(videos), args.clips):  # the first read of each video is not counted: it is looked at then
        clip = videos[number % len(videos)]
        start = int(rng.integers(clip.frames - args.length + 1))
        frames = {}
        for reader, dataset in sets.items():
            before = time.process_time()
            frames[reader] = dataset.read(clip, start, args.length, 1)
            if number >= 0:
                times[reader].append(time.process_time() - before)
        differ += not np.array_equal(frames["pyav"], frames["torchcodec"])
    pyav, torchcodec = (1000 * float(np.median(times[r])) for r in ("pyav", "torchcodec"))
    ratios = np.array(times["pyav"]) / times["torchcodec"]
    print(f"{args.clips} clips of {args.length} frames; {differ} differ")
    print(f"CPU time of a clip, median: PyAV {pyav:.1f} ms, torchcodec {torchcodec:.1f} ms")
    low, median, high = np.percentile(ratios, [10, 50, 90])
    print(f"PyAV / torchcodec: {median:.2f} (10 % – 90 %: {low:.2f} – {high:.2f})")


if __name__ == "__main__":
    main()
