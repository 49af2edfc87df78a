"""However images are kept, a model sees the same bytes in the same order."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pear_cli.config.choices import Caching, Interpolation, Resize
from pear_cli.data import decoding, disk_cache, loading
from pear_cli.data.folder import ImageFolder
from pear_cli.data.images import Records
from pear_cli.data.pinned import InMemory
from pear_cli.data.preparation import Preparation
from pear_cli.errors import DataError
from pear_cli.store import cache
from pear_cli.system import progress
from pear_cli.training.batches import Batches

TO = Preparation(8)
HALF = ((0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train", 11), ("test", 4)):
        for index in range(count):
            place = tmp_path / "photos" / part / "ab"[index % 2] / f"{index}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (12, 16 + index, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place)
            os.utime(place, (1, 1))
    return ImageFolder("photos", root=str(tmp_path / "photos"), cache=Caching.ram)


def kept(dataset, caching, workers=0):
    return loading.load(replace(dataset, cache=caching), "train800val200", TO, workers)


def seen(split, *indices):
    batches = Batches(split, HALF, torch.device("cpu"))
    return [(x.numpy().tobytes(), y.tolist()) for x, y in batches.each(list(map(torch.tensor, indices)))]


def pixel_file():
    (found,) = cache.folder().glob("pixels/*.pixels")
    return found


@pytest.mark.parametrize(
    ("caching", "workers"), [(Caching.disk, 0), (Caching.none, 0), (Caching.none, 1), (Caching.none, 2)]
)
def test_all_ways_give_the_same_batches(photos, caching, workers):
    order = [3, 0, 9], [1], [10, 2, 4, 5], [8, 7, 6]
    expected = seen(kept(photos, Caching.ram), *order)
    split, before = kept(photos, caching, workers), torch.get_rng_state()
    for _ in range(2):
        assert seen(split, *order) == expected
    assert len(Batches(split, HALF, torch.device("cpu"))) == 11
    assert torch.equal(torch.get_rng_state(), before)  # dropout draws from it


def test_a_second_run_decodes_a_sample_only(photos, monkeypatch, said):
    expected = seen(kept(photos, Caching.disk), [0, 1])
    calls, decode = [], disk_cache.prepared
    monkeypatch.setattr(disk_cache, "prepared", lambda *of: calls.append(of[1]) or decode(*of))
    monkeypatch.setattr(decoding, "prepared", None)
    monkeypatch.setattr(disk_cache, "SAMPLE", 3)
    split = kept(photos, Caching.disk)
    assert seen(split, [0, 1]) == expected
    assert len(set(calls)) == 3
    assert len(said) == 1  # where the first run has put them


def test_decoded_images_of_other_code_or_decoders_are_noticed_and_made_again(photos, said):
    expected = seen(kept(photos, Caching.disk), [0, 5])
    whole = pixel_file().read_bytes()
    shape = (11, 8, 8, 3)
    pixels = 255 - np.frombuffer(whole, np.uint8, int(np.prod(shape))).reshape(shape)
    sums = np.array([disk_cache._sum(image) for image in pixels], "<u4")
    pixel_file().write_bytes(pixels.tobytes() + sums.tobytes() + disk_cache._seal(sums, shape))
    assert seen(kept(photos, Caching.disk), [0, 5]) == expected
    assert pixel_file().read_bytes() == whole
    assert any("is decoded to other pixels now; it is made again" in line for line in said)


def test_another_preparation_or_split_is_another_file(photos):
    kept(photos, Caching.disk)
    photos = replace(photos, cache=Caching.disk)
    for preparation in (
        Preparation(9),
        Preparation(8, Resize.crop, 0.5),
        Preparation(8, interpolation=Interpolation.bilinear),
    ):
        loading.load(photos, "train800val200", preparation)
    loading.load(photos, "test", TO)
    assert len(list(cache.folder().glob("pixels/*"))) == 5


def test_each_image_is_checked_once(photos, monkeypatch):
    split = kept(photos, Caching.disk)
    sums = []
    monkeypatch.setattr(disk_cache, "_sum", lambda image: sums.append(1) or split.sums[len(sums) - 1])
    for _ in range(3):
        list(split.read([np.arange(6)]))
    assert len(sums) == 6


def test_a_bit_that_flipped_is_found_and_the_image_decoded_again(photos, said):
    expected = seen(kept(photos, Caching.disk), [0, 5])
    content = bytearray(pixel_file().read_bytes())
    content[5 * 3 * 64 + 17] ^= 4
    pixel_file().write_bytes(content)
    assert seen(kept(photos, Caching.disk), [0, 5]) == expected
    assert "is damaged; the next run makes it again" in said[-1]
    assert not list(cache.folder().glob("pixels/*.pixels"))


@pytest.mark.parametrize("harm", [lambda c: c[:-1], lambda c: c[:-40] + bytes(8) + c[-32:], lambda c: b""])
def test_a_file_whose_end_is_damaged_is_made_again(photos, harm):
    expected = seen(kept(photos, Caching.disk), [0, 5])
    content = pixel_file().read_bytes()
    pixel_file().write_bytes(harm(content))
    assert seen(kept(photos, Caching.disk), [0, 5]) == expected
    assert pixel_file().read_bytes() == content


def test_a_full_disk_or_a_cache_that_cannot_be_written_is_said_and_does_not_hinder(
    photos, said, monkeypatch, tmp_path
):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = seen(kept(photos, Caching.ram), [0])
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        assert seen(kept(photos, Caching.disk), [0]) == expected
        patch.delattr(os, "posix_fallocate")
        patch.setattr(disk_cache, "_sum", full)
        assert seen(kept(photos, Caching.disk), [0]) == expected
        patch.setattr(loading, "memory", lambda: 10)
        assert isinstance(kept(photos, Caching.disk), decoding.Streamed)
    assert not list(cache.folder().glob("pixels/.tmp-*"))
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "file" / "below"))
    assert seen(kept(photos, Caching.disk), [0]) == expected
    notes = [line for line in said if line.startswith("no cache of train800val200")]
    assert len(notes) == 4
    assert "(No space left on device); using ram instead" in notes[0]
    assert "using none instead" in notes[2]


def test_builders_at_the_same_time_do_not_hinder_each_other(photos):
    expected = seen(kept(photos, Caching.ram), [0, 10])
    with ThreadPoolExecutor(4) as pool:
        assert all(
            seen(split, [0, 10]) == expected
            for split in pool.map(lambda _: kept(photos, Caching.disk), "abcd")
        )
    assert [path.suffix for path in cache.folder().glob("pixels/*")] == [".pixels"]


def test_what_a_killed_builder_left_is_swept_after_a_day(photos):
    begun = cache.folder() / "pixels" / ".tmp-1"
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"x")
    kept(photos, Caching.disk)
    assert begun.exists()
    os.utime(begun, (1, 1))
    loading.load(replace(photos, cache=Caching.disk), "test", TO)
    assert not begun.exists()


@pytest.mark.parametrize(
    ("memory", "free", "expected"),
    [(4, 0, Caching.ram), (3.9, 2, Caching.disk), (3.9, 1.9, Caching.none)],
)
def test_auto_takes_the_first_that_has_room(monkeypatch, memory, free, expected):
    monkeypatch.setattr(loading, "memory", lambda: memory * 1000)
    monkeypatch.setattr(cache, "free", lambda: free * 1000)
    assert loading.choose(1000) is expected


def test_there_is_some_memory_and_some_disk(monkeypatch, tmp_path):
    assert loading.memory() > 2**20
    monkeypatch.setenv("PEAR_CACHE", str(tmp_path / "not" / "there" / "yet"))
    assert cache.free() > 0


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("caching", [Caching.ram, Caching.disk, Caching.none])
def test_a_cut_image_is_named_whatever_decodes_it(photos, caching, workers):
    cut = next((Path(photos.root) / "train" / "a").glob("4.jpg"))
    cut.write_bytes(cut.read_bytes()[:400])
    with pytest.raises(DataError, match=r"^image .*4\.jpg cannot be read: [^\n]*; replace or remove it$"):
        seen(kept(photos, caching, workers), *[[i] for i in range(11)])
    assert not list(cache.folder().glob("pixels/*"))


@dataclass(frozen=True, eq=False)
class Deadly(Records):
    """Image 2 ends the process that decodes it."""

    labels: np.ndarray

    def name(self, index):
        return f"deadly-{index}.png"

    def image(self, index):
        if index == 2:
            os._exit(9)
        return Image.new("RGB", (8, 8))


def test_a_process_that_dies_is_an_error_that_names_the_image():
    split = decoding.Streamed(Deadly(np.zeros(4, np.int64)), TO, workers=1)
    with pytest.raises(DataError, match=r"died at one of: deadly-2\.png \("):
        list(split.read([np.array([0, 1]), np.array([2, 3])]))


def test_an_image_too_thin_to_crop_is_named():
    records = InMemory(np.zeros((1, 1, 9000, 3), np.uint8), np.zeros(1, np.int64))
    with pytest.raises(DataError, match=r"^image image 0: 9000×1 is too long and thin to crop"):
        decoding.held(records, Preparation(224, Resize.crop, 0.875), ("a", "b"))


def test_what_is_read_again_and_again_is_decoded_once_where_it_fits(photos, monkeypatch):
    calls, decode = [], decoding.prepared
    monkeypatch.setattr(decoding, "prepared", lambda *of: calls.append(of[1]) or decode(*of))
    streamed = Batches(
        loading.load(replace(photos, cache=Caching.none), "train800", TO), HALF, torch.device("cpu")
    )
    chosen = torch.split(torch.randperm(6, generator=torch.Generator().manual_seed(0)), 4)
    again = streamed.repeated(6)
    first, second = ([x for x, _ in again.each(chosen)] for _ in range(2))
    assert sorted(calls) == list(range(6))
    assert all(map(torch.equal, first, second))
    assert all(map(torch.equal, first, [x for x, _ in streamed.each(chosen)]))
    monkeypatch.setattr(loading, "memory", lambda: 4 * 6 * 3 * 8 * 8 - 1)
    assert streamed.repeated(6).split is streamed.split
    assert streamed.repeated(5).split is not streamed.split


def test_sizes_are_told_in_units_that_fit(photos, said):
    loading.load(replace(photos, cache=Caching.disk), "train800", TO)
    assert said[-1].endswith("(1.7 KiB)")  # 9 images of 8 × 8
    assert [progress.size(n) for n in (0, 1023, 5 * 2**20, 3e9)] == ["0 B", "1023 B", "5.0 MiB", "2.8 GiB"]
