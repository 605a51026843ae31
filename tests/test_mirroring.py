"""Mirrored photographs: what is true of them is what their own pixels would say."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import tiny_model

from facefit.encoder import dataset
from facefit.encoder.augmentation import NONE
from facefit.encoder.coefficients import Coefficients, coefficients
from facefit.encoder.device_augmentation import Stored, augmented_batch
from facefit.encoder.landmarks import ibug_points
from facefit.encoder.looks import look
from facefit.encoder.mirroring import (
    MIRRORED68,
    mirror_coefficients,
    mirror_matrices,
    mirror_truth,
)
from facefit.encoder.networks import make_encoder
from facefit.encoder.pipeline import evaluation_batches
from facefit.encoder.surface import encoder_surface
from facefit.encoder.surface_points import SurfaceModel, surface_model, true_points
from facefit.encoder.synthetic_data import SynthesisSettings, synthesize
from facefit.encoder.weights import embedded_encoder
from facefit.model import albedo, at_points, find_model, vertices
from facefit.photo.cropping import mirror_landmarks
from facefit.photo.face_crop import face_square
from facefit.photo.face_mesh import mirror_mesh, mirror_permutation
from facefit.render.lighting import irradiance

SIZE = 96


@pytest.fixture(scope="module")
def model():
    return find_model("open")


@pytest.fixture(scope="module")
def matrices(model):
    return mirror_matrices(model)


@pytest.fixture
def truth(model):
    rng = np.random.default_rng(4)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "identity": normal(len(model.identity_basis)),
        "expression": 0.3 * np.abs(normal(len(model.expression_basis))),
        "albedo": normal(len(model.albedo_basis)),
        "lighting": normal(9, 3),
        "rotation": np.float32([0.1, -0.5, 0.2]),
        "translation": np.float32([12.0, -7.0, 900.0]),
        "focal": np.float32(400.0),
    }


def opposite(model):
    mean = np.asarray(model.mean)
    order = np.lexsort(np.round(mean, 3).T)
    other = np.lexsort(np.round(mean * [-1, 1, 1], 3).T)
    found = np.empty(len(mean), int)
    found[other] = order
    return found


def test_mirrored_coefficients_make_the_mirrored_face(model, matrices, truth):
    mirrored, other = mirror_truth(matrices, truth), opposite(model)
    plain = np.asarray(vertices(model, truth["identity"], truth["expression"]))
    made = np.asarray(vertices(model, mirrored["identity"], mirrored["expression"]))
    wanted = plain[other] * [-1, 1, 1]
    changed = np.abs(wanted - plain).max()
    assert changed > 1.0  # millimetres: the face is not its own mirror image
    assert np.sqrt(np.mean((made - wanted) ** 2)) < 0.15
    colors, again = (np.asarray(albedo(model, one["albedo"])) for one in (truth, mirrored))
    assert np.sqrt(np.mean((again - colors[other]) ** 2)) < 0.01


def test_mirrored_light_falls_from_the_other_side(matrices, truth):
    normals = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    mirrored = mirror_truth(matrices, truth)["lighting"]
    np.testing.assert_allclose(
        irradiance(jnp.asarray(normals * [-1, 1, 1], jnp.float32), mirrored),
        irradiance(normals, truth["lighting"]),
        atol=1e-5,
    )


def test_mirrored_truth_puts_the_surface_where_the_mirrored_picture_has_it(model, matrices, truth):
    """By vertices and their opposites, which need no landmarks' symmetry."""
    chosen = np.arange(0, len(model.mean), 37)

    def of(rows):
        part = [
            np.asarray(b)[..., rows, :] for b in (model.mean, model.identity_basis, model.expression_basis)
        ]
        return SurfaceModel(*part, (0, 0, 0))

    plain = true_points(of(opposite(model)[chosen]), truth, SIZE)
    made = true_points(of(chosen), mirror_truth(matrices, truth), SIZE)
    wanted = mirror_landmarks(plain, SIZE, np.arange(len(chosen)))
    assert np.sqrt(np.mean((made - wanted) ** 2)) < 0.1  # pixels
    assert np.abs(plain - made).max() > 5


def test_mirroring_twice_changes_nothing(matrices, truth):
    again = mirror_truth(matrices, mirror_truth(matrices, truth))
    for name in ("lighting", "rotation", "translation", "focal"):
        np.testing.assert_array_equal(again[name], truth[name])
    points = np.random.default_rng(1).uniform(0, SIZE, (68, 2))
    np.testing.assert_allclose(
        mirror_landmarks(mirror_landmarks(points, SIZE, MIRRORED68), SIZE, MIRRORED68), points
    )
    pairs = {0: 16, 17: 26, 31: 35, 36: 45, 41: 46, 48: 54, 60: 64, 67: 65, 30: 30, 8: 8, 57: 57, 62: 62}
    assert all(MIRRORED68[a] == b for a, b in pairs.items())


def test_a_lopsided_model_has_no_mirrored_faces():
    assert mirror_matrices(tiny_model()) is None


def test_batches_mirror_labelled_photographs(tmp_path):
    """The permuted points of the detector lie near the surface points, which come from the truth."""
    synthesize(tmp_path / "data", SynthesisSettings(6, 3, "open", SIZE, per_person=1))
    count = int((dataset.read_dataset(tmp_path / "data").split == dataset.TRAIN).sum())
    assert count >= 3
    mirror = dataclasses.replace(NONE, mirror=1.0)
    plain, made = (
        next(iter(evaluation_batches(tmp_path / "data", "train", count, 64, augmentation=amount)))
        for amount in (NONE, mirror)
    )
    assert np.abs(made.image - plain.image[:, :, ::-1]).mean() < 0.02
    np.testing.assert_allclose(made.landmarks[:, 16, 0], 64 - plain.landmarks[:, 0, 0], atol=0.3)
    np.testing.assert_allclose(made.dense[:, mirror_permutation(), 0], 64 - plain.dense[:, :, 0], atol=0.3)
    apart = [np.linalg.norm(one.dense[..., :2] - one.surface468, axis=-1).mean() for one in (plain, made)]
    assert apart[1] < 1.3 * apart[0] + 0.2


def test_batches_on_the_device_are_mirrored_as_the_others(tmp_path, model, matrices):
    folder = tmp_path / "data"
    synthesize(folder, SynthesisSettings(6, 3, "open", SIZE, per_person=1))
    data = dataset.read_dataset(folder)
    row = int(np.flatnonzero(data.split == dataset.TRAIN)[0])
    image, (center, side) = dataset.read_sample(folder, row)[0], face_square(ibug_points(data.dense[row]))
    truth = {name: values[row] for name, values in data.truth.items()}
    told = {name: truth[name] for name in ("identity", "expression", "albedo", "lighting")}
    told |= {"landmarks": data.landmarks[row], "dense": data.dense[row], "image": image}
    told["surface468"] = true_points(surface_model(model), truth, len(image))
    stored = Stored(square=np.float32([*center, side]), **told)
    stored = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], stored)
    amount = dataclasses.replace(NONE, mirror=1.0)
    mirror = jax.tree.map(jnp.asarray, matrices)
    made = augmented_batch(stored, jnp.int32(1), jax.random.key(0), 2, 64, amount, mirror)
    wanted = next(iter(evaluation_batches(folder, "train", 1, 64, augmentation=amount)))
    assert np.abs(made.image - wanted.image).mean() < 0.02
    for name in ("identity", "expression", "albedo", "lighting"):
        np.testing.assert_allclose(getattr(made, name)[:1], getattr(wanted, name), atol=1e-4, err_msg=name)
    # The one mirrors the crop, the other lays it about the mirrored points.
    for name in ("landmarks", "dense"):
        np.testing.assert_allclose(getattr(made, name)[:1], getattr(wanted, name), atol=0.4, err_msg=name)
    # The one mirrors the points, the other has them from the mirrored truth.
    assert np.linalg.norm(made.surface468[:1] - wanted.surface468, axis=-1).mean() < 0.4


def test_mirrored_coefficients_are_the_mirrored_truth(model, matrices, truth):
    names = [field.name for field in dataclasses.fields(Coefficients)]
    found = Coefficients(**{name: jnp.asarray(truth[name])[None] for name in names})
    made = mirror_coefficients(matrices, found)
    for name, values in mirror_truth(matrices, truth).items():
        if name in names:
            np.testing.assert_allclose(getattr(made, name)[0], values, rtol=1e-4, atol=1e-4)


def test_a_photograph_and_its_mirror_image_are_predicted_as_mirror_images(model):
    """Whatever the network says of either: the mean of both looks is the same face, mirrored."""
    trained, surface = embedded_encoder(), encoder_surface(model)
    size = trained.size
    image = np.random.default_rng(0).uniform(size=(1, size, size, 3)).astype(np.float32)
    marks = np.asarray(at_points(model, model.landmarks468).mean) * [1, -1, -1]
    dense = (marks * 0.6 + [size / 2, size / 2, 0]).astype(np.float32)[None]
    turned = mirror_mesh(dense, size)
    plain, _ = look(trained.encoder, None, surface, image, dense)
    mirrored, _ = look(trained.encoder, None, surface, image[:, :, ::-1], turned)
    back = mirror_coefficients(surface.mirror, mirrored)
    alone = coefficients(trained.encoder(image, dense)[0], surface.start)
    for name in ("identity", "expression", "rotation", "translation", "lighting"):
        one, other = np.asarray(getattr(plain, name)), np.asarray(getattr(back, name))
        away = np.abs(one - np.asarray(getattr(alone, name))).max()
        # The mirrored components are not quite the model's own: twice mirrored is once by less than this.
        assert np.abs(one - other).max() < 0.2 * away + 1e-4, name


def test_a_model_without_mirrored_faces_is_looked_at_once():
    model = tiny_model()
    encoder, surface = make_encoder(model, 0, "small+landmarks", 32), encoder_surface(model)
    encoder.heads["identity"].bias[...] = jnp.arange(4.0)
    found, confidence = look(encoder, None, surface, jnp.zeros((2, 32, 32, 3)), jnp.zeros((2, 468, 3)))
    np.testing.assert_allclose(found.identity, np.tile(np.arange(4.0), (2, 1)))
    assert confidence.shape == (2, 4)
