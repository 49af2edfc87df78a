"""Every kind of image file becomes upright RGB of the wanted size."""

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from pear_cli.config.choices import Interpolation, Resize
from pear_cli.data.preparation import Preparation
from pear_cli.data.transforms import accept_large, read, to_rgb
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
    upright = Preparation(4)(read(tmp_path / "turned.png"))
    assert upright[0].min() > 200
    assert upright[3].max() < 50


def test_resizing_is_direct_and_bicubic():
    image = Image.fromarray(np.arange(6 * 4, dtype=np.uint8).reshape(6, 4))
    out = Preparation(3)(image)
    assert out.shape == (3, 3, 3)
    assert np.array_equal(out[..., 0], np.asarray(image.resize((3, 3), Image.Resampling.BICUBIC)))


def test_a_file_of_the_wanted_size_keeps_its_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "same.png")
    assert np.array_equal(Preparation(5)(read(tmp_path / "same.png")), pixels)


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


def noise(width, height, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    return Image.fromarray(pixels, "RGBA").convert(mode)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(61, 40), (40, 61), (33, 33), (5, 9), (40, 40), (300, 31)])
def test_cropping_is_timms_to_the_bit(shape, crop_pct, interpolation):
    ours = Preparation(32, Resize.crop, crop_pct, Interpolation(interpolation))(noise(*shape))
    timms = create_transform(
        32, interpolation=interpolation, crop_pct=crop_pct, crop_mode="center", normalize=False
    )
    assert np.array_equal(ours, timms(noise(*shape)).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_direct_resizing_is_timms_squash_to_the_bit(interpolation):
    ours = Preparation(32, interpolation=Interpolation(interpolation))(noise(61, 40))
    timms = create_transform(
        32, interpolation=interpolation, crop_pct=1.0, crop_mode="squash", normalize=False
    )
    assert np.array_equal(ours, timms(noise(61, 40)).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("resize", list(Resize))
@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "I;16", "1"])
def test_an_image_of_any_mode_and_size_is_prepared(mode, resize):
    preparation = Preparation(16, resize, 1.0 if resize is Resize.direct else 0.875)
    for shape in ((1, 1), (1, 7), (40, 30)):
        image = Image.new(mode, shape) if mode == "I;16" else noise(*shape, "RGB").convert(mode)
        assert preparation(to_rgb(image)).shape == (16, 16, 3)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_the_first_frame_of_an_animation_counts(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), color) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert read(tmp_path / f"a.{suffix}").getpixel((4, 4)) == (200, 0, 0)


def test_a_palette_with_a_transparent_entry_keeps_its_colours(tmp_path):
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.save(tmp_path / "a.png", transparency=1)
    assert read(tmp_path / "a.png").getpixel((0, 0)) == (9, 8, 7)


def test_an_image_of_10000_by_10000_is_read_without_a_warning(tmp_path):
    Image.new("L", (10_000, 10_000), 7).save(tmp_path / "large.png", compress_level=1)
    accept_large()
    assert Preparation(4)(read(tmp_path / "large.png")).tolist() == [[[7] * 3] * 4] * 4


def test_a_decompression_bomb_is_refused(tmp_path):
    header = b"P5 20000 20000 255\n"
    (tmp_path / "bomb.pgm").write_bytes(header)
    with pytest.raises(DataError, match=r"bomb.pgm cannot be read: Image size \(400000000 pixels\)"):
        read(tmp_path / "bomb.pgm")


def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch):
    noise(4, 4).save(tmp_path / "odd.png")
    monkeypatch.setattr("PIL.ImageOps.exif_transpose", lambda _: {}["gone"])
    with pytest.raises(DataError, match=r"odd.png cannot be read: 'gone'; replace or remove it"):
        read(tmp_path / "odd.png")


@pytest.mark.parametrize("values", [[np.nan, 3.0], [-2.0, 100.0], [np.inf, 1.0], [0.2, 0.9], [0.0, 256.0]])
def test_floating_point_values_that_are_no_grey_levels_are_refused(tmp_path, values):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(DataError, match=r"floats.tif .*floating-point numbers, and not in 0 to 255"):
        read(tmp_path / "floats.tif")


def test_negative_grey_is_refused(tmp_path):
    Image.fromarray(np.array([[-1, 300]], np.int32)).save(tmp_path / "signed.tif")
    with pytest.raises(DataError, match=r"signed.tif .*its grey values are negative"):
        read(tmp_path / "signed.tif")
