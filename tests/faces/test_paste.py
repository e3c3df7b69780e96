"""Pasting a face back."""

import cv2
import numpy as np
import pytest

from keep.faces.align import TEMPLATE_512, crop, invert, similarity, transform
from keep.faces.parse import find_parser, soft_mask
from keep.faces.paste import face_mask, feathered_mask, from_zoomed, match_colour, paste, zoomed
from keep.utils.errors import UserError


def picture(height: int = 240, width: int = 320) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # pyright: ignore


def turned(angle: float, scale: float, centre: tuple[float, float], size: int) -> np.ndarray:
    """Frame → crop: the square around ``centre`` whose side is size/scale pixels, turned."""
    matrix = cv2.getRotationMatrix2D(centre, angle, scale)
    matrix[:, 2] += (size - 1) / 2 - np.array(centre)
    return matrix


@pytest.mark.parametrize(
    ("angle", "scale", "centre"),
    [(0, 1, (160, 120)), (25, 1.3, (150, 110)), (-70, 0.8, (20, 30)), (10, 4, (160, 120)), (5, 0.5, (160, 120))],
)
def test_an_unchanged_face_leaves_the_frame_as_it_was(angle, scale, centre):
    frame = picture()
    matrix = turned(angle, scale, centre, 128)
    pasted = frame.copy()
    paste(pasted, crop(frame, matrix, 128, border="replicate"), feathered_mask(128), matrix)
    difference = np.abs(pasted.astype(int) - frame)
    assert difference.max() <= (6 if scale >= 0.8 else 40)  # a face larger than the crop loses detail
    assert difference.mean() < 1


def test_only_what_the_mask_covers_changes():
    frame = picture()
    matrix = turned(30, 1.5, (200, 100), 96)
    pasted = frame.copy()
    paste(pasted, np.full((96, 96, 3), 255, np.uint8), feathered_mask(96), matrix)
    covered = cv2.warpAffine(np.ones((96, 96), np.float32), invert(matrix), (320, 240)) > 0
    assert np.array_equal(pasted[~covered], frame[~covered])
    x, y = transform(invert(matrix), np.array([48, 48])).round().astype(int)
    assert (pasted[y, x] == 255).all()


def test_a_small_mask_moves_no_pixel_of_the_face():
    """Only the part under the mask is computed."""
    frame, face, matrix = picture(), picture()[:96, :96], turned(30, 0.7, (200, 100), 96)
    small, large = frame.copy(), frame.copy()
    paste(small, face, face_mask(96), matrix)
    paste(large, face, np.ones((96, 96), np.float32), matrix)
    covered = cv2.warpAffine(face_mask(96), matrix, (320, 240), flags=cv2.WARP_INVERSE_MAP) == 1
    assert covered.sum() > 500
    assert np.abs(small[covered].astype(int) - large[covered]).max() <= 1


def test_a_face_beyond_the_frame_is_no_error():
    frame = picture()
    before = frame.copy()
    paste(frame, np.zeros((64, 64, 3), np.uint8), feathered_mask(64), turned(0, 1, (-500, -500), 64))
    assert np.array_equal(frame, before)


def test_a_tiny_face_does_not_alias():
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 254
    frame = np.full((60, 60, 3), 127, np.uint8)
    paste(frame, stripes, np.ones((256, 256), np.float32), turned(0, 16, (30, 30), 256))
    assert np.abs(frame[24:36, 24:36].astype(int) - 127).max() <= 2


def test_where_the_pasted_face_lands():
    """A dot at the template's nose comes out at the frame's nose, also in an enlarged frame."""
    points = np.array([[100, 80], [150, 85], [127, 110], [103, 140], [145, 143]], float)
    matrix = similarity(points, 256)
    face = np.zeros((256, 256, 3), np.uint8)
    x, y = (TEMPLATE_512[2] / 2).round().astype(int)
    face[y - 3 : y + 4, x - 3 : x + 4] = 255
    nose = transform(invert(matrix), np.array([x, y], float))
    for scale in (1, 2):
        frame = np.zeros((240 * scale, 320 * scale, 3), np.uint8)
        paste(frame, face, feathered_mask(256), from_zoomed(matrix, scale))
        rows, columns = np.nonzero(frame[..., 0] > 100)
        expected = (nose + 0.5) * scale - 0.5
        np.testing.assert_allclose([columns.mean(), rows.mean()], expected, atol=0.6)


def test_zoomed_crops_show_the_same():
    frame, matrix = picture(), turned(20, 1, (160, 120), 64)
    double = crop(frame, zoomed(matrix, 2), 128)
    halved = cv2.resize(double, (64, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(halved.astype(int) - crop(frame, matrix, 64)).mean() < 2


def test_the_feathered_mask_ends_before_the_border():
    mask = feathered_mask(100)
    assert mask.dtype == np.float32
    assert mask[50, 50] == 1
    assert mask[:3].max() == mask[:, -3:].max() == 0
    assert np.all(np.diff(mask[50, :50]) >= 0)


def test_the_face_mask_is_shaped_as_a_face():
    """All five points are inside, the corners and the border are not, and no edge is to be seen."""
    mask = face_mask(512)
    assert all(mask[round(y), round(x)] > 0.99 for x, y in TEMPLATE_512)
    assert max(mask[:12].max(), mask[-12:].max(), mask[:, :12].max(), mask[:, -12:].max()) == 0
    assert max(mask[90, 90], mask[90, -90], mask[440, 60]) < 0.05, "hair and background stay the input's"
    assert mask.mean() < 0.6 * feathered_mask(512).mean()
    assert max(np.abs(np.diff(mask, axis=axis)).max() for axis in (0, 1)) < 0.06
    np.testing.assert_allclose(mask, mask[:, ::-1], atol=1e-6)


def test_the_colour_is_the_inputs_and_the_detail_the_restored_ones():
    given = np.full((64, 64, 3), (180, 120, 90), np.uint8)
    restored = np.full((64, 64, 3), (150, 140, 110), np.uint8)
    restored[:, ::2] += 20
    matched = match_colour(restored, given)
    np.testing.assert_allclose(matched.mean((0, 1)), [180, 120, 90], atol=1)
    assert np.abs(matched[:, 1::2].mean() - matched[:, ::2].mean()) == pytest.approx(20, abs=1)


def test_a_hand_before_the_face_stays():
    restored = np.zeros((128, 128), bool)
    restored[20:110, 20:110] = True
    given = restored.copy()
    given[70:110, 20:60] = False  # a hand: the parser sees no face there
    mask = soft_mask(restored, given)
    assert mask[90, 40] < 0.01
    assert mask[40, 80] > 0.99
    assert mask[:10].max() < 0.01


def test_a_poor_input_does_not_hide_the_face():
    restored = np.zeros((128, 128), bool)
    restored[20:110, 20:110] = True
    given = np.zeros_like(restored)
    given[20:30, 20:30] = True
    assert soft_mask(restored, given)[90, 90] > 0.99


def test_no_parser_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    assert find_parser("none") is None
    assert find_parser("auto", cache=tmp_path) is None
    with pytest.raises(UserError, match="there is no file"):
        find_parser(str(tmp_path / "nothing.pth"))


def test_parsenet_parses_from_a_given_file(tmp_path):
    pytest.importorskip("facexlib.parsing.parsenet", reason="facexlib is not installed")
    import torch
    from facexlib.parsing.parsenet import ParseNet

    torch.manual_seed(0)
    torch.save(ParseNet(in_size=512, out_size=512, parsing_ch=19).state_dict(), tmp_path / "parse.pth")
    parser = find_parser(str(tmp_path / "parse.pth"))
    assert parser is not None
    masks = parser(np.zeros((1, 64, 64, 3), np.uint8))
    assert masks.shape == (1, 64, 64)
    assert masks.dtype == bool
