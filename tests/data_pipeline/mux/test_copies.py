"""Sound and subtitles are copied bit for bit and in step; what does not fit is named."""

import av
import numpy as np
import pytest
from videos import SUBTITLES, copy, make, packets_of, times_of

from keep.data.mux.streams import plans_of


def test_audio_and_subtitles_are_copied_bit_for_bit(tmp_path, texture):
    (tmp_path / "s.srt").write_text(SUBTITLES)
    source = make(tmp_path / "in.mkv", texture(25), audio=True, subtitles=str(tmp_path / "s.srt"))
    assert not any(plan.note for plan in plans_of(source, ".mkv"))
    copy(source, tmp_path / "out.mkv")
    for kind in ("audio", "subtitles"):
        given, kept = packets_of(source, kind), packets_of(tmp_path / "out.mkv", kind)
        assert given
        assert [data for data, _ in kept] == [data for data, _ in given]
        np.testing.assert_allclose([float(t) for _, t in kept], [float(t) for _, t in given], atol=2e-3)
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.subtitles[0].language == "swe"
        assert container.streams.subtitles[0].codec_context.name in ("subrip", "srt")


def test_what_does_not_fit_the_container_is_named(tmp_path, texture):
    (tmp_path / "s.srt").write_text(SUBTITLES)
    source = make(tmp_path / "in.mkv", texture(12), audio=True, subtitles=str(tmp_path / "s.srt"))
    sound, text = plans_of(source, ".mp4")
    assert (sound.how, sound.note) == ("copy", "")
    assert text.note == "subtitle stream 2 (subrip): left out: it does not fit into .mp4"
    copy(source, tmp_path / "out.mp4")
    assert [data for data, _ in packets_of(tmp_path / "out.mp4", "audio")] == [
        data for data, _ in packets_of(source, "audio")
    ]


def test_a_late_start_keeps_sound_and_picture_together(tmp_path, texture):
    source = make(tmp_path / "in.mkv", texture(12), audio=True, start=1400)
    copy(source, tmp_path / "out.mkv")
    (_, sound), picture = packets_of(tmp_path / "out.mkv", "audio")[0], times_of(tmp_path / "out.mkv")[0]
    (_, sound_before), picture_before = packets_of(source, "audio")[0], times_of(source)[0]
    assert float(picture) < 0.1
    assert float(picture - sound) == pytest.approx(float(picture_before - sound_before), abs=2e-3)
