"""What torchvision's datasets consist of: files, archives with the checksums of their publishers, numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Archive:
    """A file that is downloaded.

    Args:
        place: where torchvision keeps it, below the root.
        url: where it comes from.
        md5: of its content, in hex; "" where none is published.
    """

    place: str
    url: str
    md5: str


@dataclass(frozen=True)
class Published:
    """A dataset as torchvision lays it out.

    Args:
        files: the files and folders below the root that hold it.
        archives: what they are made from, in the order of the download.
        images: images by part.
    """

    files: tuple[str, ...]
    archives: tuple[Archive, ...]
    images: Mapping[str, int] = field(default_factory=dict)


OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
SIGNS = "https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370"
FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

PUBLISHED = {
    "CIFAR10": Published(
        ("cifar-10-batches-py",),
        (
            Archive(
                "cifar-10-python.tar.gz",
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a",
            ),
        ),
        {"train": 50000, "test": 10000},
    ),
    "CIFAR100": Published(
        ("cifar-100-python",),
        (
            Archive(
                "cifar-100-python.tar.gz",
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "eb9058c3a382ffc7106e4002c42a8d85",
            ),
        ),
        {"train": 50000, "test": 10000},
    ),
    "Caltech101": Published(
        ("caltech101/101_ObjectCategories",),
        (
            Archive(
                "caltech101/caltech-101.zip",
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                "3138e1922a9193bfa496528edbbc45d0",
            ),
        ),
        {"train": 8677},
    ),
    "DTD": Published(
        ("dtd/dtd",),
        (
            Archive(
                "dtd/dtd-r1.0.1.tar.gz",
                f"{OXFORD}/dtd/download/dtd-r1.0.1.tar.gz",
                "fff73e5086ae6bdbea199a49dfb8a4c1",
            ),
        ),
        {"train": 1880, "val": 1880, "test": 1880},
    ),
    "EuroSAT": Published(
        ("eurosat/2750",),
        (
            Archive(
                "eurosat/EuroSAT.zip",
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                "c8fa014336c82ac7804f0398fcb19387",
            ),
        ),
        {"train": 27000},
    ),
    "FGVCAircraft": Published(
        ("fgvc-aircraft-2013b",),
        (
            Archive(
                "fgvc-aircraft-2013b.tar.gz",
                f"{OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                "",
            ),
        ),
        {"train": 3334, "val": 3333, "trainval": 6667, "test": 3333},
    ),
    "FashionMNIST": Published(
        ("FashionMNIST/raw",),
        tuple(
            Archive(f"FashionMNIST/raw/{name}.gz", f"{FASHION}/{name}.gz", md5)
            for name, md5 in (
                ("train-images-idx3-ubyte", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
                ("train-labels-idx1-ubyte", "25c81989df183df01b3e8a0aad5dffbe"),
                ("t10k-images-idx3-ubyte", "bef4ecab320f06d8554ea6380940ec79"),
                ("t10k-labels-idx1-ubyte", "bb300cfdad3c16e7a12a480ee83cd310"),
            )
        ),
        {"train": 60000, "test": 10000},
    ),
    "Flowers102": Published(
        ("flowers-102",),
        tuple(
            Archive(f"flowers-102/{name}", f"{OXFORD}/flowers/102/{name}", md5)
            for name, md5 in (
                ("102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
                ("imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
                ("setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
            )
        ),
        {"train": 1020, "val": 1020, "test": 6149},
    ),
    "Food101": Published(
        ("food-101",),
        (
            Archive(
                "food-101.tar.gz",
                "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                "85eeb15f3717b99a5da872d97d918f87",
            ),
        ),
        {"train": 75750, "test": 25250},
    ),
    "GTSRB": Published(
        ("gtsrb",),
        tuple(
            Archive(f"gtsrb/{name}", f"{SIGNS}/{name}", md5)
            for name, md5 in (
                ("GTSRB-Training_fixed.zip", "513f3c79a4c5141765e10e952eaa2478"),
                ("GTSRB_Final_Test_Images.zip", "c7e4e6327067d32654124b0fe9e82185"),
                ("GTSRB_Final_Test_GT.zip", "fe31e9c9270bbcd7b84b7f21a9d9d9e5"),
            )
        ),
        {"train": 26640, "test": 12630},
    ),
    "OxfordIIITPet": Published(
        ("oxford-iiit-pet/images", "oxford-iiit-pet/annotations"),
        tuple(
            Archive(f"oxford-iiit-pet/{name}", f"{OXFORD}/pets/data/{name}", md5)
            for name, md5 in (
                ("images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
                ("annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
            )
        ),
        {"trainval": 3680, "test": 3669},
    ),
    "SUN397": Published(
        ("SUN397",),
        (
            Archive(
                "SUN397.tar.gz",
                "http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
                "8ca2778205c41d23104230ba66911c7a",
            ),
        ),
        {"train": 108754},
    ),
    "SVHN": Published(
        ("train_32x32.mat", "test_32x32.mat"),
        tuple(
            Archive(name, f"http://ufldl.stanford.edu/housenumbers/{name}", md5)
            for name, md5 in (
                ("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
                ("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
            )
        ),
        {"train": 73257, "test": 26032},
    ),
}
