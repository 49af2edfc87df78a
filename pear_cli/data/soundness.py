"""Whether all images of a dataset can be decoded, known before anything is trained on some of them."""

from collections.abc import Callable, Mapping

from PIL import __version__

from pear_cli.data.dataset import SPOKEN, Dataset
from pear_cli.data.images import Records
from pear_cli.data.transforms import accept_large
from pear_cli.errors import DataError
from pear_cli.store import cache
from pear_cli.system import progress, threads


def check(dataset: Dataset, splits: Mapping[str, str]) -> None:
    """Decode every image of some splits, once: what was sound is remembered by its content.

    Args:
        splits: fingerprints by split.

    Raises:
        DataError: naming the first image that is damaged, and the number of the others.
    """
    if dataset.holding().places is None:  # it comes with pear, pinned by a hash
        return
    accept_large()
    damaged: list[DataError] = []
    for split, fingerprint in splits.items():
        key = f"all images of {fingerprint} decoded by Pillow {__version__}"
        if cache.recall(key):
            continue
        records, before = dataset.records(split), len(damaged)
        with progress.ticker(f"checking {SPOKEN[split]}", len(records), late=True) as ticker:
            for error in threads.each(_checking(records), range(len(records))):
                damaged += [error] if error else []
                ticker.step()
        if len(damaged) == before:
            cache.remember(key, {"images": len(records)})
    if damaged:
        more = [f"and {len(damaged) - 1} more; pear data verify names them all"] if damaged[1:] else []
        raise DataError(*damaged[0].args, *more)


def _checking(records: Records) -> Callable[[int], DataError | None]:
    def error(index: int) -> DataError | None:
        try:
            records.check(index)
        except DataError as error:
            return error
        return None

    return error
