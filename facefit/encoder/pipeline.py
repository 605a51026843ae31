"""Batches for training and evaluation: data read, augmented and mixed by grain, resumable at every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import jax
import numpy as np

from facefit.encoder.augmentation import GRADED, NONE, TRAINING, Augmentation, augment
from facefit.encoder.batch import Batch
from facefit.encoder.dataset import SPLITS, Dataset, read_dataset, read_sample
from facefit.encoder.mirroring import MIRRORED68, mirror_truth
from facefit.encoder.surface_points import SurfaceModel, surface_model, true_points
from facefit.errors import InputError
from facefit.model.store import find_model
from facefit.photo.cropping import mirror_landmarks
from facefit.photo.face_mesh import mirror_mesh

_SUBJECTS = 10_000_000  # numbers kept apart for each data set of a run


def training_batches(
    labelled: str | Path | None,
    photographs: str | Path | Sequence[str | Path] | None,
    labelled_share: float,
    batch_size: int,
    size: int,
    seed: int,
    workers: int = 0,
    model: str | Path = "open",
    augmentation: Augmentation = TRAINING,
):
    """Endless augmented batches of both kinds, mixed; `iter` of it has `get_state` and `set_state`.

    The state is plain JSON and enough to go on exactly: every sample's augmentation depends on `seed` and its
    place in the order alone. Under several processes each reads its share of every batch.

    Args:
        labelled: folder of a synthetic data set. photographs: one of photographs, or several. Either may be
            None.
        labelled_share: of a batch, where there are both.
        batch_size: over all processes. size: of the crops, pixels.
        workers: processes that read and augment; 0 uses threads of this one.
        model: whose coefficient counts the batches have.

    Raises:
        InputError: no data, no training samples, or labels of another model.
    """
    grain = _grain()
    points = surface_model(find_model(model))
    folders = [photographs] if isinstance(photographs, (str, Path)) else list(photographs or ())
    sets = [read_dataset(folder) for folder in ([labelled] if labelled else []) + folders]
    if not sets:
        raise InputError("there are no data to train on: give labelled faces, photographs, or both")
    if labelled and not sets[0].labelled:
        raise InputError(f"{labelled}: its faces are not labelled. Make labelled ones with `facefit synth`.")
    parts, shares = [], []
    photos = sum(_members(data, "train").size for data in sets[bool(labelled) :])
    for number, data in enumerate(sets):
        members = _members(data, "train")
        if not members.size:
            raise InputError(f"{data.folder}: has no samples for training. Prepare more photographs.")
        if labelled and number == 0:
            share = labelled_share if folders else 1.0
        else:
            share = members.size / photos * (1 - labelled_share if labelled else 1.0)
        if share > 0:
            places = grain.MapDataset.source([(number, int(index)) for index in members])
            parts.append(places.shuffle(seed=(seed + 7919 * number) % 2**32).repeat())
            shares.append(share)
    mixed = grain.MapDataset.mix(parts, shares) if len(parts) > 1 else parts[0]
    load = _Load(tuple(sets), points, size, augmentation)
    return _batched(grain, mixed, load, seed, batch_size, workers)


def image_set_batches(
    data: str | Path,
    batch_size: int,
    views: int,
    size: int,
    seed: int,
    workers: int = 0,
    model: str | Path = "open",
    split: str = "train",
    augmentation: Augmentation = GRADED,
):
    """As `training_batches`, with leading axes (batch_size, views): photographs of one subject each.

    Subjects with fewer than `views` photographs show some of theirs more than once, differently augmented;
    subjects with a single one are left out. Labels are given where the data are synthetic.

    Raises:
        InputError: no subject of the split has two photographs.
    """
    grain = _grain()
    dataset = read_dataset(data)
    members = _members(dataset, split)
    subjects = dataset.subject[members]
    groups = [members[subjects == subject] for subject in np.unique(subjects)]
    groups = [(0, tuple(int(index) for index in group)) for group in groups if len(group) > 1]
    if not groups:
        raise InputError(
            f"{dataset.folder}: no person of the {split} split has two photographs: there are no image sets"
        )
    source = grain.MapDataset.source(groups).shuffle(seed=seed % 2**32).repeat()
    load = _Load((dataset,), surface_model(find_model(model)), size, augmentation, views)
    return _batched(grain, source, load, seed, batch_size, workers)


def evaluation_batches(
    data: str | Path,
    split: str,
    batch_size: int,
    size: int,
    limit: int | None = None,
    model: str | Path = "open",
    augmentation: Augmentation = NONE,
) -> Iterable[Batch]:
    """A split's samples once, in order, as prediction sees them; the last batch may be smaller.

    With an `augmentation` every sample gets its own, the same each time.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r}: choose one of {', '.join(SPLITS)}")
    dataset = read_dataset(data)
    members = _members(dataset, split)[:limit]
    load = _Load((dataset,), surface_model(find_model(model)), size, augmentation)
    for first in range(0, len(members), batch_size):
        chosen = members[first : first + batch_size]
        samples = [load((0, int(index)), np.random.default_rng((0, int(index)))) for index in chosen]
        yield jax.tree.map(lambda *leaves: np.stack(leaves), *samples)


def _batched(grain, source, load: _Load, seed: int, batch_size: int, workers: int):
    processes = jax.process_count()
    if batch_size % processes:
        raise InputError(f"a batch of {batch_size} cannot be shared evenly by {processes} processes")
    samples = source.random_map(load, seed=seed % 2**32)
    share = samples[jax.process_index() :: processes].batch(batch_size // processes, drop_remainder=True)
    threads = 0 if workers else 2
    batches = share.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 if threads else 0)
    )
    if workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain asks for its flags, which a program without absl never parses
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        )
    return batches


def _grain():
    try:
        import grain
    except ImportError:
        raise InputError("training data need the package grain: pip install 'facefit[train]'") from None
    return grain


def _members(data: Dataset, split: str) -> np.ndarray:
    return np.flatnonzero(data.split == SPLITS.index(split))


@dataclasses.dataclass(frozen=True)
class _Load:
    """Reads and augments a sample (data set, index), or `views` samples of (data set, indices).

    A random transformation for grain: the generator it is given depends on the place in the order alone.
    """

    sets: tuple[Dataset, ...]
    model: SurfaceModel
    size: int
    augmentation: Augmentation
    views: int = 0

    def __post_init__(self):
        for data in self.sets:
            names = ("identity", "expression", "albedo")
            if data.labelled:
                there = tuple(data.truth[name].shape[1] for name in names)
                if there != self.model.counts:
                    raise InputError(
                        f"{data.folder}: of the model {data.facts.get('model')!r} with {there} coefficients, "
                        f"not the trained one ({self.model.counts}). Make it again with that model."
                    )

    def __call__(self, element: tuple, rng: np.random.Generator) -> Batch:
        number, index = element
        known = self.sets[number].labelled
        mirror = rng.random() < self.augmentation.mirror and not (known and self.model.mirror is None)
        if not self.views:
            return self._sample(number, index, rng, mirror)
        order = rng.permutation(len(index))
        chosen = [index[order[k % len(order)]] for k in range(self.views)]
        # All of a set or none: a mirrored face is another one.
        samples = [self._sample(number, one, rng, mirror) for one in chosen]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *samples)

    def _sample(self, number: int, index: int, rng: np.random.Generator, mirror: bool) -> Batch:
        data = self.sets[number]
        labelled = data.labelled
        image, skin = read_sample(data.folder, index)
        marks, weight, dense = data.landmarks[index], data.landmark_weight[index], data.dense[index]
        truth = {name: values[index] for name, values in data.truth.items()}
        side = len(image)
        if mirror:
            image, skin = image[:, ::-1], skin[:, ::-1]
            marks, weight = mirror_landmarks(marks, side, MIRRORED68), weight[MIRRORED68]
            dense = mirror_mesh(dense, side)
            truth = mirror_truth(self.model.mirror, truth) if labelled else truth
        surface468 = true_points(self.model, truth, side) if labelled else None
        made = augment(rng, image, skin, marks, dense, self.size, self.augmentation, surface468)
        zeros = [np.zeros(count, np.float32) for count in self.model.counts]
        lighting = np.zeros((9, 3), np.float32)
        if labelled:
            kept = np.float32(data.identity_kept)  # of the coefficients; the points stay where they are seen
            zeros = [kept * truth["identity"], truth["expression"], truth["albedo"]]
            lighting = truth["lighting"] * made.gain
        return Batch(
            image=made.image,
            landmarks=made.landmarks,
            landmark_weight=weight,
            dense=made.dense,
            surface468=made.surface468,
            skin=made.skin,
            labelled=np.bool_(labelled),
            identity=zeros[0],
            expression=zeros[1],
            albedo=zeros[2],
            lighting=lighting,
            subject=np.int32(data.subject[index] + number * _SUBJECTS),
        )
