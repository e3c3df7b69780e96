import numpy as np
import pytest
from videos import TIMES, images_of, make, packets_of, times_of

from keep.data.mux import VideoSource, remux
from keep.utils.errors import UserError


@pytest.mark.parametrize("rotation", [0, 90])
@pytest.mark.parametrize("suffix", [".mp4", ".MOV", ".mkv"])
def test_streams_go_into_another_container_bit_for_bit(tmp_path, texture, suffix, rotation):
    source = make(tmp_path / "in.mkv", texture(12), TIMES, audio=True, rotation=rotation, start=700, bf="2")
    out = tmp_path / f"out{suffix}"
    remux(VideoSource(source), out)
    assert np.array_equal(images_of(out), images_of(source))
    assert VideoSource(out).rotation == VideoSource(source).rotation
    assert [data for data, _ in packets_of(out, "audio")] == [data for data, _ in packets_of(source, "audio")]
    times = [float(t) for t in times_of(out)]
    np.testing.assert_allclose(np.array(times) - times[0], np.array(TIMES) / 1000, atol=2e-3)
    with pytest.raises(UserError, match="cannot store the pictures"):
        remux(VideoSource(source), tmp_path / "out.webm")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", out.name]
