import cv2
import numpy as np
import pytest

from keep.data.mux import FrameFolder, FrameWriter, list_images
from keep.utils.errors import UserError


def test_a_folder_of_frames(tmp_path, texture):
    folder, clip = tmp_path / "frames", texture(12)
    folder.mkdir()
    for i, image in enumerate(clip):
        cv2.imwrite(str(folder / f"f_{i}.png"), image[..., ::-1])
    (folder / "notes.txt").touch()
    assert [f.stem for f in list_images(folder)] == [f"f_{i}" for i in range(12)]
    video = FrameFolder(folder, 30)
    frames = list(video)
    assert np.array_equal(np.stack([f.image for f in frames]), clip)
    with FrameWriter(tmp_path / "out") as writer:
        for frame in frames:
            writer.write(frame.image, frame)
    assert np.array_equal(np.stack([f.image for f in FrameFolder(tmp_path / "out")]), clip)
    assert [f.name for f in list_images(tmp_path / "out")] == [f"f_{i}.png" for i in range(12)]
    with pytest.raises(UserError, match="exists and is not empty"):
        FrameWriter(tmp_path / "out")

    (folder / "f_3.png").write_bytes(b"broken")
    assert len(list(video)) == 11
    assert video.lost == 1
    cv2.imwrite(str(folder / "f_5.png"), np.zeros((8, 8, 3)))
    with pytest.raises(UserError, match=r"f_5\.png: is 8×8, the others 64×48"):
        list(video)
