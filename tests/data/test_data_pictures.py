"""Every kind of image file becomes upright RGB of the wanted size."""

import numpy as np
import pytest
from PIL import Image

from pear_cli.data.pictures import read, resize, to_rgb
from pear_cli.errors import DataError

MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "HSV",
    "I",
    "F",
    "I;16",
)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_of_any_mode_becomes_rgb(mode):
    image = to_rgb(Image.new(mode, (5, 4)))
    assert image.mode == "RGB"
    assert image.size == (5, 4)


@pytest.mark.parametrize(
    ("suffix", "mode"), [("png", "I;16"), ("tif", "I;16"), ("tif", "I;16B"), ("tif", "I")]
)
def test_sixteen_bit_grey_keeps_its_upper_byte(tmp_path, suffix, mode):
    path = tmp_path / f"deep.{suffix}"
    values = np.array([[0, 255, 256], [32768, 40000, 65535]])
    kind = {"I": np.int32, "I;16B": np.dtype(">u2")}.get(mode, np.uint16)
    Image.frombytes(mode, (3, 2), values.astype(kind).tobytes()).save(path)
    with Image.open(path) as image:
        assert np.asarray(to_rgb(image))[..., 1].tolist() == [[0, 0, 1], [128, 156, 255]]


def test_colours_under_transparency_stay(tmp_path):
    Image.new("RGBA", (2, 2), (10, 200, 30, 0)).save(tmp_path / "clear.png")
    assert read(tmp_path / "clear.png").getpixel((0, 0)) == (10, 200, 30)
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    palette.save(tmp_path / "palette.png", transparency=bytes([255, 0]))
    assert read(tmp_path / "palette.png").getpixel((0, 0)) == (9, 8, 7)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (4, 2))
    image.paste((255, 255, 255), (0, 0, 2, 2))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise: the left half comes to the top
    image.save(tmp_path / "turned.png", exif=exif)
    upright = resize(read(tmp_path / "turned.png"), 4)
    assert upright[0].min() > 200
    assert upright[3].max() < 50


def test_resizing_is_direct_and_bicubic():
    image = Image.fromarray(np.arange(6 * 4, dtype=np.uint8).reshape(6, 4))
    out = resize(image, 3)
    assert out.shape == (3, 3, 3)
    assert np.array_equal(out[..., 0], np.asarray(image.resize((3, 3), Image.Resampling.BICUBIC)))


def test_a_file_of_the_wanted_size_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "same.png")
    assert np.array_equal(resize(read(tmp_path / "same.png"), 5), pixels)


def test_a_cut_file_and_a_missing_one_are_named(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"cut.jpg cannot be read"):
        read(path)
    with pytest.raises(DataError, match=r"lost.jpg is missing"):
        read(tmp_path / "lost.jpg")


def test_an_image_too_large_to_decode_safely_is_named(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"huge.png cannot be read"):
        read(tmp_path / "huge.png")
