"""Data sets and the batches made of them: resumption, labels, augmentation, and what bad folders say."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import tiny_model

from facefit.encoder import dataset, synthetic_data
from facefit.encoder.augmentation import NONE, TRAINING, Augmentation, augment
from facefit.encoder.detection import dense_points
from facefit.encoder.device_augmentation import Stored, augmented_batch, plain_batch
from facefit.encoder.landmarks import _weights, ibug_points
from facefit.encoder.pipeline import evaluation_batches, image_set_batches, training_batches
from facefit.encoder.synthetic_data import SynthesisSettings, synthesize
from facefit.errors import InputError
from facefit.model.npz import save_model
from facefit.photo import read_photograph
from facefit.photo.face_crop import FACE_SHARE, NETWORK_SHARE, face_square

SAMPLE = Path(__file__).resolve().parent.parent / "facefit" / "data" / "astronaut.jpg"
S, P = 64, 48
COUNT = 66  # more than one part
MISSED = 2  # of each part, by the detector


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.npz"
    save_model(tiny_model(), path)
    return str(path)


def dense_of(landmarks):
    """Dense points whose iBUG points are these: the detector sees no face in the tiny model."""
    solved = np.linalg.pinv(_weights()) @ (landmarks - S / 2) + S / 2
    return np.concatenate([solved, np.zeros((468, 1))], 1).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def detector():
    """Finds every face but the third one of a part."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            synthetic_data,
            "dense_points",
            lambda photos, landmarks: (
                np.stack([dense_of(marks) for marks in landmarks]),
                np.arange(len(landmarks)) != MISSED,
            ),
        )
        yield


@pytest.fixture(scope="module")
def labelled(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("data") / "labelled"
    synthesize(folder, SynthesisSettings(COUNT, 5, model, S))
    return folder


@pytest.fixture(scope="module")
def photographs(labelled):
    """The same pictures as photographs: without their truth."""
    folder = labelled.with_name("photographs")
    shutil.copytree(labelled, folder)
    data = dataset.read_dataset(labelled)
    np.savez(
        folder / "samples.npz",
        landmarks=data.landmarks,
        landmark_weight=data.landmark_weight,
        dense=data.dense,
        subject=data.subject,
        split=data.split,
        source=data.source,
    )
    return folder


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# The data set


def test_a_data_set_holds_what_it_says(labelled):
    data = dataset.read_dataset(labelled)
    assert data.facts["kind"] == "synthetic" and data.facts["size"] == S and data.labelled
    assert sum(data.facts["samples"].values()) == COUNT - 2 and len(data.landmarks) == COUNT
    assert list(np.flatnonzero(data.split == dataset.UNSEEN)) == [MISSED, 60 + MISSED]
    assert data.facts["coefficients"] == {"identity": 4, "expression": 3, "albedo": 2}
    assert data.truth["lighting"].shape == (COUNT, 9, 3) and not data.grades
    image, skin = dataset.read_sample(labelled, COUNT - 1)
    assert image.shape == (S, S, 3) and skin.shape == (S, S)
    assert not (labelled / "parts").exists()


def test_persons_are_whole_and_in_one_split(labelled):
    data = dataset.read_dataset(labelled)
    for subject in np.unique(data.subject):
        members = data.subject == subject
        seen = set(data.split[members]) - {dataset.UNSEEN}
        assert members.sum() == 3 and len(seen) == 1
        assert len(np.unique(data.truth["identity"][members], axis=0)) == 1
    assert set(data.split) == {0, 1, 2, dataset.UNSEEN}


def test_a_graded_data_set_says_how_its_photographs_are_spoiled(model, tmp_path):
    synthesize(tmp_path / "graded", SynthesisSettings(6, 5, model, S, per_person=3, graded=True))
    data = dataset.read_dataset(tmp_path / "graded")
    assert set(data.grades) == set(dataset.GRADES)
    for person in range(2):
        spoiled = [np.stack([values[3 * person + k] for values in data.grades.values()]) for k in range(3)]
        assert min(one.max() for one in spoiled) < 0.3 < max(one.max() for one in spoiled)
    with pytest.raises(InputError, match="graded: True then, None now"):
        synthesize(tmp_path / "graded", SynthesisSettings(6, 5, model, S, per_person=3))


def test_an_interrupted_synthesis_goes_on_to_the_same_data(labelled, model, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(labelled, folder)
    data = dataset.read_dataset(labelled)
    (folder / "dataset.json").unlink()
    (folder / "samples.npz").unlink()
    (folder / "images" / f"{COUNT - 1:06d}.jpg").unlink()
    (folder / "images" / ".000065.jpg.half").write_bytes(b"half")
    (folder / "parts").mkdir()
    first = {name: values[:60] for name, values in data.truth.items()}
    first |= {
        name: getattr(data, name)[:60]
        for name in ("landmarks", "landmark_weight", "dense", "subject", "split", "source")
    }
    dataset.write_part(folder, "000000", first)
    with pytest.raises(InputError, match="unfinished"):
        dataset.read_dataset(folder)
    assert synthesize(folder, SynthesisSettings(COUNT, 5, model, S)) == COUNT - 60
    again = dataset.read_dataset(folder)
    assert np.array_equal(again.landmarks, data.landmarks) and equal(again.truth, data.truth)
    assert len(list((folder / "images").iterdir())) == COUNT
    assert equal(dataset.read_sample(folder, COUNT - 1), dataset.read_sample(labelled, COUNT - 1))
    assert synthesize(folder, SynthesisSettings(COUNT, 5, model, S)) == 0


def test_other_settings_or_a_folder_of_other_things_are_refused(labelled, model, tmp_path):
    with pytest.raises(InputError, match="seed: 5 then, 6 now"):
        synthesize(labelled, SynthesisSettings(COUNT, 6, model, S))
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds no data set"):
        synthesize(tmp_path, SynthesisSettings(COUNT, 5, model, S))
    with pytest.raises(InputError, match="--count 0"):
        synthesize(tmp_path / "new", SynthesisSettings(0))
    assert not (tmp_path / "new").exists()


def test_a_damaged_data_set_says_so(labelled, tmp_path):
    with pytest.raises(InputError, match="no data set"):
        dataset.read_dataset(tmp_path / "nowhere")
    folder = tmp_path / "damaged"
    shutil.copytree(labelled, folder)
    facts = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(facts | {"version": 99}))
    with pytest.raises(InputError, match="version 99"):
        dataset.read_dataset(folder)
    (folder / "dataset.json").write_text(json.dumps(facts))
    (folder / "samples.npz").write_bytes(b"PK no zip")
    with pytest.raises(InputError, match="damaged"):
        dataset.read_dataset(folder)
    (folder / "images" / "000000.jpg").write_bytes(b"nothing")
    with pytest.raises(InputError, match="000000.jpg"):
        dataset.read_sample(folder, 0)


# Augmentation


def dots():
    """A picture with a bright dot at each of a few landmarks, the others outside of the picture."""
    rng = np.random.default_rng(0)
    landmarks = np.full((68, 2), -500.0, np.float32)
    image = np.zeros((S, S, 3), np.uint8)
    for k, (x, y) in zip((0, 16, 30, 48), rng.integers(18, 46, (4, 2)), strict=True):
        image[y - 1 : y + 2, x - 1 : x + 2, 1] = 255
        landmarks[k] = x + 0.5, y + 0.5
    return image, image[..., 1].copy(), landmarks


KNOWN = np.full((468, 2), 30.0, np.float32)  # surface points of a labelled sample


def middle():
    """Dense points around which the network's crop is the middle of the stored one."""
    reach = FACE_SHARE * NETWORK_SHARE * S / 2
    return dense_of(S / 2 + np.resize([[-reach, -reach], [reach, reach]], (68, 2)))


def test_landmarks_move_with_the_picture_and_the_skin():
    image, skin, landmarks = dots()
    moving = Augmentation(0.05, 0.1, 0.2, 1.0, 0, 0, 0, 0, (0, 0), (0, 1), (0, 0), (0, 100), 0)
    for seed in range(8):
        made = augment(
            np.random.default_rng(seed),
            image,
            skin,
            landmarks,
            middle(),
            P,
            moving,
            KNOWN if seed % 2 == 0 else None,
        )
        there = [k for k in range(68) if (made.landmarks[k] > 1).all() and (made.landmarks[k] < P - 1).all()]
        assert there
        for k in there:
            column, row = (made.landmarks[k]).astype(int)
            # The dot is three pixels wide before and 2.7 after; other dots may overlap it.
            assert made.image[row, column, 1] > 0.5
            assert made.skin[row, column] > 0.5


def test_the_gain_is_that_of_linear_light():
    grey = np.full((S, S, 3), 100, np.uint8)
    brighter = Augmentation(0, 0, 0, 0, 0.3, 0.1, 0, 0, (0, 0), (0, 1), (0, 0), (0, 100), 0)
    points = np.full((68, 2), 30.0, np.float32)
    made = augment(np.random.default_rng(1), grey, grey[..., 0], points, middle(), P, brighter, KNOWN)

    def linear(srgb):
        return ((srgb + 0.055) / 1.055) ** 2.4

    assert np.ptp(made.gain) > 0.01
    assert np.allclose(linear(made.image[5, 5]) / linear(100 / 255), made.gain, rtol=1e-4)


def test_every_augmentation_stays_a_picture():
    rng = np.random.default_rng(2)
    image, skin = rng.integers(0, 256, (S, S, 3), np.uint8), rng.integers(0, 256, (S, S), np.uint8)
    points = rng.uniform(15, 50, (68, 2)).astype(np.float32)
    always = Augmentation(grey=0.5, blur=(1, 3), coarse=(1, 0.2), noise=(1, 0.1), jpeg=(1, 10), cover=1)
    for seed in range(12):
        made = augment(np.random.default_rng(seed), image, skin, points, middle(), P, always, None)
        assert made.image.shape == (P, P, 3) and made.image.dtype == np.float32
        assert np.isfinite(made.image).all() and made.image.min() >= 0 and made.image.max() <= 1
        assert made.skin.dtype == np.float32 and made.skin.min() >= 0 and made.skin.max() <= 1


def test_the_device_cuts_the_crops_that_the_host_cuts(labelled):
    data = dataset.read_dataset(labelled)
    rows = np.flatnonzero(data.split == dataset.TRAIN)[:3]
    read = [dataset.read_sample(labelled, int(row)) for row in rows]
    squares = [face_square(ibug_points(data.dense[row])) for row in rows]
    labels = {name: data.truth[name][rows] for name in ("identity", "expression", "albedo", "lighting")}
    stored = Stored(
        image=np.stack([image for image, _ in read]),
        square=np.array([(*center, side) for center, side in squares], np.float32),
        landmarks=data.landmarks[rows],
        dense=data.dense[rows],
        surface468=data.dense[rows, :, :2] + 1,
        **labels,
    )
    made = plain_batch(jax.tree.map(jnp.asarray, stored), jnp.arange(3), P)
    for k, (image, skin) in enumerate(read):
        points = stored.landmarks[k], stored.dense[k]
        wanted = augment(np.random.default_rng(0), image, skin, *points, P, NONE, stored.surface468[k])
        # OpenCV rounds sampling positions to 1/32 of a pixel, and colours to bytes.
        assert np.abs(made.image[k] - wanted.image).max() < 0.06
        assert np.allclose(made.landmarks[k], wanted.landmarks, atol=1e-3)
        assert np.allclose(made.dense[k], wanted.dense, atol=1e-3)
        assert np.allclose(made.surface468[k], wanted.surface468, atol=1e-3)


def test_augmentation_on_the_device_stays_a_picture_and_tells_its_light(labelled):
    data = dataset.read_dataset(labelled)
    count = 4
    grey = jnp.full((count, S, S, 3), 100, jnp.uint8)
    zeros = {name: jnp.asarray(data.truth[name][:count]) for name in ("identity", "expression", "albedo")}
    points = {"landmarks": jnp.asarray(data.landmarks[:count]), "dense": jnp.asarray(data.dense[:count])}
    points["surface468"] = points["dense"][..., :2]
    square = jnp.tile(jnp.asarray([S / 2, S / 2, S / 2]), (count, 1))
    stored = Stored(image=grey, square=square, lighting=jnp.ones((count, 9, 3)), **points, **zeros)
    lit = Augmentation(0, 0, 0, 0, 0.3, 0.1, 0, 0, (0, 0), (0, 1), (0, 0), (0, 100), 0)
    made = augmented_batch(stored, jnp.int32(count), jax.random.key(0), 8, P, lit)
    linear = ((made.image[:, 5, 5] + 0.055) / 1.055) ** 2.4
    assert np.allclose(linear / ((100 / 255 + 0.055) / 1.055) ** 2.4, made.lighting[:, 0], rtol=1e-3)
    always = Augmentation(blur=(1, 3), coarse=(1, 0.2), noise=(1, 0.1), jpeg=(1, 10), cover=1)
    spoiled = augmented_batch(stored, jnp.int32(count), jax.random.key(1), 8, P, always).image
    assert spoiled.shape == (8, P, P, 3) and np.isfinite(spoiled).all()
    assert spoiled.min() >= 0 and spoiled.max() <= 1


def test_the_points_found_on_a_photograph_are_those_of_its_use():
    photograph = read_photograph(SAMPLE)
    pixels, used = photograph.pixels, photograph.landmarks468
    marks = ibug_points(used)
    dense, found = dense_points([pixels, np.full_like(pixels, 128)], np.stack([marks, marks]))
    assert found.tolist() == [True, False]
    extent = np.ptp(marks, axis=0).max()
    assert np.linalg.norm(dense[0, :, :2] - used[:, :2], axis=1).mean() < 0.01 * extent


# Batches


def test_a_pipeline_goes_on_exactly_where_its_state_was_noted(labelled, photographs, model):
    def start():
        return iter(training_batches(labelled, photographs, 0.5, 8, P, 3, model=model))

    data = start()
    for _ in range(3):
        next(data)
    state = json.loads(json.dumps(data.get_state()))
    expected = [next(data) for _ in range(12)]  # over the end of an epoch of 54 + 54 samples
    again = start()
    again.set_state(state)
    assert all(equal(batch, next(again)) for batch in expected)
    assert not equal(expected[0], expected[1])


def test_batches_mix_both_kinds_by_their_share(labelled, photographs, model):
    data = iter(training_batches(labelled, photographs, 0.25, 8, P, 3, model=model))
    batches = [next(data) for _ in range(4)]
    assert sum(batch.labelled.sum() for batch in batches) == 8
    for batch in batches:
        assert batch.image.shape == (8, P, P, 3) and batch.landmarks.shape == (8, 68, 2)
        for name in ("identity", "expression", "albedo", "lighting"):
            values = np.abs(getattr(batch, name)).reshape(8, -1).sum(1)
            assert (values[~batch.labelled] == 0).all()
            if name != "expression":
                assert (values[batch.labelled] > 0).all()
        # The same person in two data sets is two subjects.
        assert not set(batch.subject[batch.labelled]) & set(batch.subject[~batch.labelled])


def test_one_kind_alone_is_enough(labelled, photographs, model):
    assert next(iter(training_batches(labelled, None, 0.5, 4, P, 0, model=model))).labelled.all()
    batch = next(iter(training_batches(None, [photographs], 0.5, 4, P, 0, model=model)))
    assert not batch.labelled.any() and batch.identity.shape == (4, 4)


def test_every_training_sample_is_met_once_an_epoch_and_no_other(labelled, model):
    data = dataset.read_dataset(labelled)
    train = data.subject[data.split == dataset.TRAIN]
    assert len(train) % 2 == 0
    batches = iter(training_batches(labelled, None, 0.5, 2, P, 0, model=model))
    met = np.concatenate([next(batches).subject for _ in range(len(train) // 2)])
    assert sorted(met) == sorted(train)


def test_hosts_share_every_batch_without_overlap(labelled, photographs, model, monkeypatch):
    def first_batch(index, count):
        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(jax, "process_count", lambda: count)
        return next(iter(training_batches(labelled, photographs, 0.5, 8, P, 3, model=model)))

    whole, shares = first_batch(0, 1), [first_batch(index, 2) for index in range(2)]
    for index, share in enumerate(shares):
        assert equal(share, jax.tree.map(lambda leaf, first=index: leaf[first::2], whole))
    with pytest.raises(InputError, match="shared evenly"):
        first_batch(0, 3)


def test_image_sets_show_one_subject_each(labelled, photographs, model):
    sets = next(iter(image_set_batches(labelled, 4, 5, P, 1, model=model)))
    assert sets.image.shape == (4, 5, P, P, 3)
    assert (sets.subject == sets.subject[:, :1]).all() and len(set(sets.subject[:, 0])) == 4
    assert (sets.identity == sets.identity[:, :1]).all() and sets.labelled.all()
    assert not np.array_equal(sets.image[0, 0], sets.image[0, 3]), "the same photograph, augmented anew"
    assert not next(iter(image_set_batches(photographs, 2, 2, P, 1, model=model))).labelled.any()


def test_evaluation_sees_a_split_once_in_order_unchanged(labelled, model):
    data = dataset.read_dataset(labelled)
    members = np.flatnonzero(data.split == dataset.VALIDATION)
    batches = list(evaluation_batches(labelled, "validation", 2, P, model=model))
    assert [len(batch.subject) for batch in batches] == [2, 1] and len(members) == 3
    found = np.concatenate([batch.landmarks for batch in batches])
    scale = P / (0.75 * S)
    assert np.allclose(found, (data.landmarks[members] - S / 2) * scale + P / 2, atol=1e-3)
    assert np.array_equal(np.concatenate([b.identity for b in batches]), data.truth["identity"][members])
    assert len(list(evaluation_batches(labelled, "train", 8, P, 16, model=model))) == 2


def test_part_of_the_identity_that_fits_found_is_learned_where_they_saw_the_points(labelled, model, tmp_path):
    folder = tmp_path / "fitted"
    shutil.copytree(labelled, folder)
    facts = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(facts | {"identity_kept": 0.25}))
    whole, part = (
        next(iter(evaluation_batches(of, "validation", 2, P, model=model))) for of in (labelled, folder)
    )
    assert np.array_equal(part.identity, np.float32(0.25) * whole.identity) and part.identity.any()
    for name in ("expression", "albedo", "lighting", "surface468", "landmarks"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)), name


def test_data_that_cannot_be_trained_on_say_why(labelled, photographs, model, tmp_path):
    with pytest.raises(InputError, match="no data to train on"):
        training_batches(None, None, 0.5, 4, P, 0, model=model)
    with pytest.raises(InputError, match="not labelled"):
        training_batches(photographs, None, 0.5, 4, P, 0, model=model)
    with pytest.raises(InputError, match="not the trained one"):
        training_batches(labelled, None, 0.5, 4, P, 0, model="open")
    with pytest.raises(InputError, match="choose one of train"):
        next(iter(evaluation_batches(labelled, "dev", 4, P, model=model)))


@pytest.mark.slow  # starts two processes
def test_reading_in_processes_gives_the_same_batches(labelled, model):
    alone = iter(training_batches(labelled, None, 0.5, 4, P, 0, model=model))
    helped = iter(training_batches(labelled, None, 0.5, 4, P, 0, workers=2, model=model))
    for _ in range(4):
        assert equal(next(alone), next(helped))
    state = json.loads(json.dumps(helped.get_state()))
    expected = next(helped)
    again = iter(training_batches(labelled, None, 0.5, 4, P, 0, workers=2, model=model))
    again.set_state(state)
    assert equal(expected, next(again))


def test_the_usual_augmentation_is_that_of_the_paper():
    assert (TRAINING.shift * 224, TRAINING.scale, TRAINING.mirror) == (10, 0.1, 0.5)
    assert np.degrees(TRAINING.rotation) == pytest.approx(10)
