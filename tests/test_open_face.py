"""The embedded open face model: human measures, a sound mesh, landmarks, expressions and albedo in place."""

import sys
from pathlib import Path

import numpy as np
import pytest

from facefit.model.npz import load_model, read_arrays
from facefit.model.pigment import PigmentBounds
from facefit.model.store import EMBEDDED
from facefit.model.transfer import positions

ROOT = Path(__file__).resolve().parent.parent
PATH = EMBEDDED["open"]


@pytest.fixture(scope="module")
def model():
    loaded = load_model(PATH)
    return loaded.replace(
        **{name: np.asarray(getattr(loaded, name)) for name in ("mean", "faces", "identity_basis")}
    )


@pytest.fixture(scope="module")
def landmarks(model):
    return np.asarray(positions(model, model.landmarks68))


def expression(model, name):
    """The mean face with one expression at full weight, and how far every vertex moved."""
    offset = np.asarray(model.expression_basis[model.expression_names.index(name)])
    return model.mean + offset, offset


def shifted_landmarks(model, name):
    """How far the 68 points move with an expression, (68, 3)."""
    corners = np.asarray(model.faces)[np.asarray(model.landmarks68.face)]
    _, offset = expression(model, name)
    return (offset[corners] * np.asarray(model.landmarks68.barycentric)[..., None]).sum(1)


def test_the_file_is_small_enough_to_be_embedded():
    assert PATH.stat().st_size <= 10 * 2**20


def test_it_says_that_it_is_cc0(model):
    assert "CC0" in model.licence
    assert "CC0" in PATH.with_name("NOTICE.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def measures(model):
    pytest.importorskip("scipy")
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from experiments.open_face import anthropometry

    arrays = read_arrays(PATH)
    prefix = "measure_points/"
    chosen = {name.removeprefix(prefix): v for name, v in arrays.items() if name.startswith(prefix)}
    z = np.random.default_rng(3).standard_normal((2000, len(model.identity_basis)))
    points = anthropometry.points_of(model.mean, chosen)
    steps = anthropometry.points_of(np.asarray(model.identity_basis), chosen)
    heads = {name: points[name] + np.tensordot(z, steps[name], 1) for name in points}
    return [(m, np.asarray(m.value(heads))) for m in anthropometry.MEASURES]


def test_samples_have_the_published_means(measures):
    wrong = []
    for measure, values in measures:
        # Lengths known from large surveys: 2 %, and half a millimetre where 2 % would be less than a
        # vertex's place is worth. The others (profile distances and angles of smaller, selected samples)
        # within 0.8 standard deviations.
        limit = 0.8 * measure.sd if measure.slack > 0.3 else max(0.02 * measure.mean, 0.5)
        limit += 3.0 * measure.sd / np.sqrt(len(values))
        if abs(values.mean() - measure.mean) > limit:
            wrong.append(f"{measure.name}: {values.mean():.1f}, published {measure.mean:.1f}")
    assert not wrong


def test_samples_have_the_published_standard_deviations(measures):
    wrong = [
        f"{m.name}: {values.std():.2f}, published {m.sd:.2f}"
        for m, values in measures
        if abs(values.std() / m.sd - 1.0) > 0.10 + 3.0 / np.sqrt(2 * len(values))
    ]
    assert not wrong


def test_every_edge_has_at_most_two_triangles_and_holes_are_only_where_the_head_ends(model):
    faces = model.faces
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() == 2
    border = np.unique(unique[count == 1])
    inner = np.asarray(model.regions["inner"])[border] > 0.5
    low = model.mean[border, 1] < -80.0
    assert (inner | low).all()  # behind the lids, and the end of the neck


def test_triangles_wind_counter_clockwise_from_outside(model):
    corners = model.mean[model.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    assert areas.min() > 0
    centre = corners.mean(1)
    outside = np.asarray(model.regions["inner"])[model.faces].max(1) < 0.5
    ears = np.asarray(model.regions["ears"])[model.faces].max(1) > 0.05
    chosen = outside & ~ears & (centre[:, 1] > -60)
    eyes = np.asarray(model.regions["eyes"])[model.faces].min(1) > 0.5
    out = centre - np.array([0.0, 0.0, 0.0])
    for side in (-1, 1):
        ball = eyes & (side * centre[:, 0] > 0)
        out[ball] = centre[ball] - centre[ball].mean(0)
    right_way = (normals * out).sum(1) > 0
    # Folds under the nose, behind the lids and between the lips do look back at the middle of the head.
    assert np.average(right_way[chosen], weights=areas[chosen]) > 0.97


def test_the_mean_is_symmetric(model):
    mirrored = model.mean * np.array([-1.0, 1.0, 1.0], np.float32)
    rounded = {tuple(np.round(v, 2)) for v in model.mean}
    near = [
        any(
            (x + dx, y + dy, z + dz) in rounded
            for dx in (-0.01, 0, 0.01)
            for dy in (-0.01, 0, 0.01)
            for dz in (-0.01, 0, 0.01)
        )
        for x, y, z in (tuple(np.round(v, 2)) for v in mirrored[::7])
    ]
    found = np.array(
        [min(np.abs(model.mean - v).max(1)) for v, ok in zip(mirrored[::7], near, strict=True) if not ok]
    )
    assert found.size == 0 or found.max() < 0.02


def test_landmarks_lie_where_their_numbers_say(landmarks):
    p = landmarks
    assert p[36, 0] < p[39, 0] < 0 < p[42, 0] < p[45, 0]  # the subject's right eye is at -x
    assert 80 < p[45, 0] - p[36, 0] < 100
    assert np.abs(p[[8, 27, 28, 29, 30, 33, 51, 57, 62, 66], 0]).max() < 0.3
    assert p[30, 2] == p[:, 2].max() and p[8, 1] == p[:, 1].min()
    assert (np.diff(p[:17, 0]) > -0.5).all()  # jaw, from the right ear to the left one; nearly upright there
    assert (np.diff(p[:9, 1]) < 0).all() and (np.diff(p[8:17, 1]) > 0).all()
    assert (np.diff(p[17:27, 0]) > 0).all() and p[17:27, 1].min() > p[36:48, 1].max()
    assert (np.diff(p[27:31, 1]) < 0).all() and (np.diff(p[31:36, 0]) > 0).all()
    assert (p[[37, 38, 43, 44], 1] > p[[41, 40, 47, 46], 1] + 4).all()
    assert (np.diff(p[48:55, 0]) > 0).all() and p[51, 1] > p[62, 1] >= p[66, 1] - 0.5 > p[57, 1]


def test_landmarks_mirror_each_other(landmarks):
    pairs = [(i, 16 - i) for i in range(8)] + [(i, 43 - i) for i in range(17, 22)] + [(31, 35), (32, 34)]
    pairs += [
        (36, 45),
        (37, 44),
        (38, 43),
        (39, 42),
        (40, 47),
        (41, 46),
        (48, 54),
        (49, 53),
        (50, 52),
        (59, 55),
        (60, 64),
    ]
    a, b = np.array(pairs).T
    assert (
        np.abs(landmarks[a] * [-1, 1, 1] - landmarks[b]).max() < 0.6
    )  # diagonals of quads are not mirrored everywhere


def test_dense_landmarks_agree_with_the_68_points(model, landmarks):
    dense = np.asarray(positions(model, model.landmarks468))
    # Face Mesh numbers of eye corners, nose tip, mouth corners.
    for ibug, mesh, limit in (
        (36, 33, 3),
        (39, 133, 3),
        (42, 362, 3),
        (45, 263, 3),
        (30, 4, 5),
        (48, 61, 6),
        (54, 291, 6),
    ):
        assert np.linalg.norm(dense[mesh] - landmarks[ibug]) < limit
    sigma = np.asarray(model.landmark_sigma468)
    assert (sigma > 0.002).all() and np.median(sigma) < 0.04


def test_regions_lie_where_their_names_say(model, landmarks):
    r = {name: np.asarray(values) for name, values in model.regions.items()}
    where = {name: model.mean[values > 0.5] for name, values in r.items()}
    assert np.abs(where["lips"].mean(0) - landmarks[48:60].mean(0)).max() < 6
    assert np.abs(where["lips"][:, 0]).max() < landmarks[54, 0] + 2
    left = where["eyes"][where["eyes"][:, 0] > 0].mean(0)
    assert np.abs(left[:2] - landmarks[42:48, :2].mean(0)).max() < 4
    assert np.abs(where["ears"][:, 0]).min() > 50 and where["scalp"][:, 1].max() == model.mean[:, 1].max()
    assert where["neck"][:, 1].min() == model.mean[:, 1].min()
    assert where["brows"][:, 1].min() > landmarks[36:48, 1].max()
    total = sum(r[name] for name in ("skin", "lips", "brows", "scalp", "eyes", "inner"))
    assert total.min() > 0.6  # everything belongs somewhere


def test_there_are_the_52_arkit_expressions(model):
    assert len(model.expression_names) == 52 and model.expression_is_blendshape
    for name in model.expression_names:
        assert np.abs(expression(model, name)[1]).max() > 0.5, name


def test_jaw_open_lowers_the_chin_and_opens_the_mouth(model):
    move = shifted_landmarks(model, "jawOpen")
    assert move[8, 1] < -12 and abs(move[30, 1]) < 2
    gap = move[62, 1] - move[66, 1]
    assert gap > 12


def test_left_is_the_subjects_left(model):
    blink = shifted_landmarks(model, "eyeBlinkLeft")
    assert blink[[43, 44], 1].max() < -3 and np.abs(blink[[37, 38]]).max() < 0.3  # +x is the subject's left
    smile = shifted_landmarks(model, "mouthSmileLeft")
    assert smile[54, 1] > 2 and abs(smile[48, 1]) < 1
    brow = shifted_landmarks(model, "browOuterUpRight")
    assert brow[18, 1] > 1 and np.abs(brow[25]).max() < 0.3


def test_a_blink_closes_the_eye(model, landmarks):
    blink = landmarks + shifted_landmarks(model, "eyeBlinkLeft")
    open_gap = landmarks[[43, 44], 1].mean() - landmarks[[46, 47], 1].mean()
    assert blink[[43, 44], 1].mean() - blink[[46, 47], 1].mean() < 0.25 * open_gap


def test_eyes_turn_without_changing_their_size(model):
    eyes = np.asarray(model.regions["eyes"]) > 0.5
    left = eyes & (model.mean[:, 0] > 0)
    posed, offset = expression(model, "eyeLookUpLeft")
    front = np.argmax(np.where(left, model.mean[:, 2], -np.inf))
    assert offset[front, 1] > 1.5  # the pupil goes up
    assert np.abs(offset[eyes & ~left]).max() < 0.05
    centre = model.mean[left].mean(0)
    before, after = (
        np.linalg.norm(model.mean[left] - centre, axis=1),
        np.linalg.norm(posed[left] - centre, axis=1),
    )
    assert np.abs(after - before).max() < 1.5


def test_albedo_is_a_reflectance(model):
    mean, basis = np.asarray(model.albedo_mean), np.asarray(model.albedo_basis)
    assert 40 <= len(basis) <= 60
    assert mean.min() > 0 and mean.max() < 1
    skin = np.asarray(model.regions["skin"]) > 0.5
    red, green, blue = mean[skin].mean(0)
    assert red > green > blue > 0.05
    drawn = mean + np.tensordot(np.random.default_rng(0).standard_normal((200, len(basis))), basis, 1)
    outside = np.maximum(-drawn, drawn - 1)
    assert (outside > 0.02).mean() < 0.02
    assert np.abs(2 * basis).max() < 1


def test_skin_runs_from_very_light_to_very_dark(model):
    skin = (np.asarray(model.regions["skin"]) > 0.9) & (np.asarray(model.regions["ears"]) < 0.1)
    mean, tone = np.asarray(model.albedo_mean)[skin].mean(0), np.asarray(model.albedo_basis)[0][skin].mean(0)
    dark, light = mean - 2 * tone, mean + 2 * tone
    assert (dark > 0).all() and dark.max() < 0.12
    assert light[0] > 0.55 and light[2] > 0.18


def test_random_people_have_human_colors(model):
    bounds, rng = PigmentBounds.of(model), np.random.default_rng(3)
    mean, basis = np.asarray(model.albedo_mean), np.asarray(model.albedo_basis)
    skin = np.asarray(model.regions["skin"]) > 0.9
    odd, shifts = 0, []
    for _ in range(30):
        drawn = rng.standard_normal(len(basis))
        kept = bounds.nearest(drawn)
        before, after = (mean + np.tensordot(one, basis, 1) for one in (drawn, kept))
        odd += (before[skin, 1] > 0.85 * before[skin, 0]).any() or (before < 0).any()
        # Brown to rosy, never blue or green, never black.
        assert (after[skin, 1] < 0.8 * after[skin, 0] + 0.01).all()
        assert (after[skin, 2] < 0.95 * after[skin, 1] + 0.01).all()
        assert after.min() > -0.02 and after[skin].min() > 0.01
        shifts.append(kept[0] - drawn[0])
    assert odd > 3  # or the bounds would do nothing
    # The tone of the skin stays: it is the details that give way, but for the darkest.
    assert np.abs(shifts).max() < 1.5 and abs(np.mean(shifts)) < 0.35


def test_colors_that_are_plausible_stay(model):
    bounds = PigmentBounds.of(model)
    for tone in (-1.0, 0.0, 1.0):
        drawn = np.zeros(len(model.albedo_basis))
        drawn[0] = tone
        np.testing.assert_allclose(bounds.nearest(drawn), drawn, atol=0.25)
    np.testing.assert_array_equal(bounds.nearest(np.zeros(len(model.albedo_basis))), 0)


def test_irises_take_the_melanin_of_the_skin(model):
    front = np.asarray(model.albedo_mean), np.asarray(model.albedo_basis)[0]
    eyes = np.asarray(model.regions["eyes"]) > 0.5
    mean, lightness = (values[eyes, 0] for values in front)
    iris, white = (mean > 0.03) & (mean < 0.1), mean > 0.25
    assert iris.sum() > 5 and white.sum() > 20
    share = lightness / mean
    assert np.median(share[iris]) > 0.25  # brown eyes in dark faces
    assert 0 < share[white].max() < 0.15  # whose white stays nearly white
