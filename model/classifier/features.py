"""A frozen backbone's features: computed once, then every epoch, trial and later run trains only the head on them.

A picture has one view as it is served and, for training, others that are augmented. What is drawn for those follows
from the picture's content and the view's number, so that every run and rank asks for the same ones. Features pass
through half precision whether they were computed or kept: a warm cache gives what a cold one gave, bit for bit.
"""

import hashlib
import json
import sys
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from classifier.command import Parser, positive_float, positive_int
from classifier.data import Pictures, Splits
from classifier.engine import Engine, chosen_precision
from classifier.feature_cache import FeatureCache
from classifier.mistake import Mistake
from classifier.network import head_name, replace
from classifier.preprocessing import PictureError, Preprocessing
from classifier.ranks import ALONE, Ranks
from classifier.samples import Augmentation, FeatureSamples
from classifier.views import CACHED, COMPUTED, DAMAGED, View, ViewFeatures


@dataclass(frozen=True)
class Extraction:
    """How features are computed and kept.

    views: of each training picture. cache, cache_gb: the folder they are kept in, and its bound. given: a folder that
    is only read. precision: auto, fp32 or bf16. compile: None decides by the number of views.
    """

    views: int = 1
    cache: Path | None = None
    cache_gb: float = 4.0
    given: Path | None = None
    precision: str = "auto"
    compile: bool | None = None


@dataclass(frozen=True)
class Extracted:
    """The features of each split. splits: the same pictures, without the damaged ones.

    computed, from_cache: views of pictures, of all ranks together. seconds: from the first file read to the last
    feature. pictures_per_second: while computing; None where nothing was. engine: how they were computed, in words.
    """

    splits: Splits
    train: FeatureSamples
    validation: FeatureSamples
    test: FeatureSamples
    computed: int
    from_cache: int
    seconds: float
    pictures_per_second: float | None
    engine: str

    @property
    def speed(self) -> dict:
        """What metrics.json says of it."""
        speed = self.pictures_per_second
        return {
            "engine": self.engine,
            "extraction_seconds": round(self.seconds, 3),
            "extraction_pictures_per_second": speed and round(speed, 3),
            "features_computed": self.computed,
            "features_from_cache": self.from_cache,
        }


def add_extraction_flags(parser: Parser, environment: Mapping[str, str]) -> None:
    """The flags of extraction; a SageMaker job's cache lies where checkpoints are kept for it."""
    # What other hosts of the job keep must not be written over this one's in S3.
    first, host = min(json.loads(environment.get("SM_HOSTS", "[]")), default=None), environment.get("SM_CURRENT_HOST")
    kept = "/opt/ml/checkpoints/features" + (f"/{host}" if host != first else "")
    group = parser.add_argument_group("features", "of a frozen backbone, computed once")
    folder = {"type": Path, "metavar": "DIR"}
    group.add_argument("--views", type=positive_int, default=1, metavar="K", help="of a training picture (%(default)s)")
    default = kept if "SM_MODEL_DIR" in environment else "build/features"
    group.add_argument("--feature-cache", **folder, default=default, help=f"where they are kept ({default})")
    group.add_argument("--feature-cache-gb", type=positive_float, default=4.0, metavar="GB", help="at most (4)")
    default = environment.get("SM_CHANNEL_FEATURES")
    group.add_argument("--features", **folder, default=default, help="another's cache, to read (SM_CHANNEL_FEATURES)")
    group.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="(auto: by the CPU)")
    words = "auto|true|false"
    group.add_argument("--compile", type=_compile, default="auto", metavar=words, help="(auto: where it pays)")


def _compile(word: str) -> bool | None:
    try:
        return {"auto": None, "true": True, "false": False}[word.lower()]
    except KeyError:
        raise ArgumentTypeError(f"{word} is none of auto, true and false") from None


def extraction_from(options: Namespace) -> Extraction:
    """What the flags ask for."""
    return Extraction(
        views=options.views,
        cache=options.feature_cache,
        cache_gb=options.feature_cache_gb,
        given=options.features,
        precision=options.precision,
        compile=options.compile,
    )


def extract(
    network: nn.Module,
    splits: Splits,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    extraction: Extraction,
    *,
    strict: bool,
    seed: int,
    ranks: Ranks = ALONE,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Extracted:
    """What the head of `network` would see of each picture, in eval mode; the network is left as it was.

    Each rank computes its share and gets all. on_progress(done, total) is called with counts of this rank's views.
    Raises Mistake: with `strict` for a damaged picture, which else is named on stderr and left out; where a class loses
    its last picture so; where features are no finite numbers in half precision.
    """
    started = time.monotonic()
    parts = {"train": splits.train, "validate": splits.validation, "test": splits.test}
    views_of = {"train": range(extraction.views), "validate": range(1), "test": range(1)}
    paths = [path for part in parts.values() for path in part.paths]
    content_of = dict(zip(paths, _contents(paths), strict=True))
    path_of = {content: path for path, content in content_of.items() if content}
    asked = (
        View(content_of[path], number) for use, part in parts.items() for path in part.paths for number in views_of[use]
    )
    # A picture that is there twice is computed once.
    wanted = list(dict.fromkeys(view for view in asked if view.content))
    precision = chosen_precision(extraction.precision)
    say = partial(print, flush=True) if ranks.leads else lambda _: None
    with (
        _headless(network) as (backbone, width),
        FeatureCache(extraction.cache, int(extraction.cache_gb * 1e9), extraction.given) as cache,
    ):

        def engine() -> Engine:
            made = Engine(backbone, precision, extraction.compile, preprocessing.image_size, len(wanted))
            say(f"features of {len(wanted)} views: {made.description}")
            return made

        source = ViewFeatures(backbone, width, preprocessing, augmentation, path_of, precision, engine)
        rows, became = _shared(source, wanted, cache, ranks, on_progress)
        computed, cached = int((became == COMPUTED).sum()), int((became == CACHED).sum())
        if computed:
            say(f"feature cache {cache}")
    finite = torch.isfinite(rows).all(dim=1)
    if not finite.all():
        path = path_of[wanted[int(finite.int().argmin())].content]
        raise Mistake(
            f"the backbone's features of {path} are no finite numbers in half precision; "
            "look at --weights, or train with --no-freeze-backbone"
        )
    place = {
        view: row for row, (view, state) in enumerate(zip(wanted, became.tolist(), strict=True)) if state != DAMAGED
    }
    # Each view is decoded by itself, and one may meet a damage that another does not come to.
    damaged = {
        path
        for use, part in parts.items()
        for path in part.paths
        if any(View(content_of[path], number) not in place for number in views_of[use])
    }
    if damaged:
        _report(sorted(damaged), len(paths), preprocessing, strict, ranks)
    kept = {use: _without(part, damaged, use) for use, part in parts.items()}

    def samples(use: str) -> FeatureSamples:
        numbers = views_of[use]
        order = [place[View(content_of[path], number)] for path in kept[use].paths for number in numbers]
        features = rows[torch.tensor(order, dtype=torch.int64)].reshape(-1, len(numbers), width)
        return FeatureSamples(features, kept[use].targets, seed)

    return Extracted(
        Splits(*kept.values()),
        *map(samples, parts),
        computed=computed,
        from_cache=cached,
        seconds=time.monotonic() - started,
        pictures_per_second=computed / source.seconds if source.seconds else None,
        engine=source.engine.description if source.seconds else f"{precision}, kept from earlier",
    )


def _shared(
    source: ViewFeatures,
    wanted: list[View],
    cache: FeatureCache,
    ranks: Ranks,
    on_progress: Callable[[int, int], None],
) -> tuple[torch.Tensor, torch.Tensor]:
    """source.rows() of all the views, of which each rank computes a share."""
    rows, became = source.rows(wanted[ranks.rank :: ranks.world], cache, on_progress)
    if ranks.world == 1:
        return rows, became
    rows, became = ranks.gather(rows), ranks.gather(became)
    # They came rank by rank, and a rank's share was every world-th view.
    place = np.argsort(np.concatenate([np.arange(len(wanted))[rank :: ranks.world] for rank in range(ranks.world)]))
    rows, became = rows[place], became[place]
    if ranks.leads:
        # One cache has everything, however many ranks look into it next.
        source.keep(cache, wanted, rows, became)
    return rows, became


def _contents(paths: Sequence[Path]) -> list[bytes | None]:
    """The sha256 of each file; None where it cannot be read."""

    def content(path: Path) -> bytes | None:
        try:
            return hashlib.sha256(path.read_bytes()).digest()
        except OSError:
            return None

    with ThreadPoolExecutor() as pool:
        return list(pool.map(content, paths))


@contextmanager
def _headless(network: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """The network with nothing in its head's place, and the number of features that the head takes."""
    name = head_name(network)
    head = network.get_submodule(name)
    replace(network, name, nn.Identity())
    try:
        yield network, head[0].in_features
    finally:
        replace(network, name, head)


def _report(damaged: list[Path], count: int, preprocessing: Preprocessing, strict: bool, ranks: Ranks) -> None:
    """Name damaged pictures, or refuse them; each reason is found once more, for another rank may have met it."""
    for path in damaged:
        try:
            preprocessing(path)
            reason = "damaged picture"
        except PictureError as error:
            reason = str(error)
        if strict:
            raise Mistake(f"{path}: {reason} ({len(damaged)} such of {count}, refused by --strict)")
        if ranks.leads:
            print(f"skipped {path}: {reason}", file=sys.stderr)
    if ranks.leads:
        print(f"skipped {len(damaged)} of {count} pictures", file=sys.stderr)


def _without(pictures: Pictures, damaged: set[Path], use: str) -> Pictures:
    kept = pictures.subset([index for index, path in enumerate(pictures.paths) if path not in damaged])
    for target in set(pictures.targets) - set(kept.targets):
        raise Mistake(f"class {pictures.labels[target]} has no readable picture left to {use} on; replace or remove it")
    return kept
