"""Model files: what is written is read back, and nothing damaged or hostile gets in."""

import io
import zipfile

import numpy as np
import pytest
from tiny_model import tiny_model

from facefit.errors import InputError
from facefit.model import find_model, list_models, load_model, model_info, save_model
from facefit.model.derived import kept
from facefit.model.npz import MAX_BYTES, encode_basis, read_arrays, write_arrays
from facefit.model.store import convert


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def arrays(model, tmp_path):
    save_model(model, tmp_path / "m.npz", encoding="float32")
    return read_arrays(tmp_path / "m.npz")


# Relative to the largest offset of a component: float16 has 11 bits, the integers keep half a step.
@pytest.mark.parametrize(
    ("encoding", "step"), [("float32", 0), ("float16", 2**-11), ("int16", 0.5 / 32767), ("int8", 0.5 / 127)]
)
def test_a_model_reads_back(model, tmp_path, encoding, step):
    path = tmp_path / "m.npz"
    save_model(model, path, encoding=encoding)
    read = load_model(path)
    for name in ("mean", "faces", "uv", "uv_faces", "albedo_mean", "landmark_sigma468"):
        np.testing.assert_array_equal(getattr(read, name), getattr(model, name))
    for name in ("identity_basis", "expression_basis", "albedo_basis"):
        values = np.asarray(getattr(model, name))
        largest = np.abs(values).max(axis=(1, 2), keepdims=True)
        assert (np.abs(np.asarray(getattr(read, name)) - values) <= 1.001 * step * largest + 1e-7).all()
    np.testing.assert_array_equal(read.landmarks468.barycentric, model.landmarks468.barycentric)
    np.testing.assert_array_equal(read.regions["skin"], model.regions["skin"])
    assert (read.name, read.expression_names, read.licence) == (
        model.name,
        model.expression_names,
        model.licence,
    )


def test_encodings_can_differ_by_basis(model, tmp_path):
    save_model(model, tmp_path / "m.npz", encoding={"identity_basis": "float16", "albedo_basis": "int8"})
    stored = read_arrays(tmp_path / "m.npz")
    kinds = [stored[f"{name}_basis"].dtype for name in ("identity", "expression", "albedo")]
    assert kinds == [np.float16, np.int16, np.int8]
    assert not encode_basis(np.zeros((2, 4, 3)), "int16")[0].any()


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    for name in ("a.npz", "b.npz"):
        save_model(model, tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def spoil(change):
    """A parameter: the field that is named in the error, and what is done to the arrays."""
    return pytest.param(*change, id=f"{change[0]}-{change[2]}")


@pytest.mark.parametrize(
    ("field", "value", "_case"),
    [
        spoil(("mean", lambda a: np.full_like(a, np.nan), "nan")),
        spoil(("mean", lambda a: a[:, :2], "dimensions")),
        spoil(("mean", lambda a: a.astype(np.int32), "integers")),
        spoil(("faces", lambda a: a + 100000, "range")),
        spoil(("faces", lambda a: a - 1, "negative")),
        spoil(("faces", lambda a: a.astype(np.float32), "floats")),
        spoil(("uv_faces", lambda a: a[:-1], "too few")),
        spoil(("identity_basis", lambda a: a[:, :-1], "vertices")),
        spoil(("identity_basis", lambda a: a[0], "two axes")),
        spoil(("landmarks68_face", lambda a: a[:67], "too few")),
        spoil(("landmarks468_face", lambda a: a * 0 + 99999, "range")),
        spoil(("landmarks468_barycentric", lambda a: a * 2, "sum")),
        spoil(("landmark_sigma468", lambda a: -a, "negative")),
        spoil(("regions/skin", lambda a: a * 3, "range")),
        spoil(("regions/lips", None, "missing")),
        spoil(("expression_names", lambda a: a[:-1], "too few")),
        spoil(("albedo_basis", None, "missing")),
        spoil(("version", lambda a: a + 1, "newer")),
    ],
)
def test_a_wrong_field_is_named_with_its_file(arrays, tmp_path, field, value, _case):
    broken = dict(arrays)
    if value is None:
        del broken[field]
    else:
        broken[field] = value(broken[field])
    path = tmp_path / "broken model.npz"
    write_arrays(broken, path)
    with pytest.raises(InputError) as caught:
        load_model(path)
    assert "broken model.npz" in str(caught.value) and field in str(caught.value)


def test_pickled_arrays_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "m.npz", mean=np.array([Bomb()], dtype=object))
    with pytest.raises(InputError, match="refused"):
        load_model(tmp_path / "m.npz")
    assert not (tmp_path / "ran").exists()


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """Three arrays of 400 MiB of zeros pack to little more than one MiB."""
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            head, {"descr": "|i1", "fortran_order": False, "shape": (400 << 20,)}
        )
        for name in "abc":
            with archive.open(f"{name}.npy", "w") as member:
                member.write(head.getvalue())
                for _ in range(400):
                    member.write(bytes(1 << 20))
    assert 3 * (400 << 20) > MAX_BYTES
    with pytest.raises(InputError, match="limit"):
        load_model(path)


def test_a_header_that_lies_about_its_size_is_refused(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("mean.npy", head.getvalue() + bytes(64))
    with pytest.raises(InputError, match="mean"):
        load_model(tmp_path / "m.npz")


@pytest.mark.parametrize("length", [0, 10, 3000])
def test_a_truncated_file_is_refused(model, tmp_path, length):
    path = tmp_path / "m.npz"
    save_model(model, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"m\.npz"):
        load_model(path)


def test_flipped_bytes_never_cause_anything_but_an_input_error(model, tmp_path):
    path = tmp_path / "m.npz"
    save_model(model, path)
    whole = bytearray(path.read_bytes())
    random = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 4):
            damaged[place] ^= 1 << random.integers(0, 8)
        path.write_bytes(damaged)
        try:
            load_model(path)
        except InputError:
            pass


def test_unknown_models_say_what_there_is(tmp_path):
    with pytest.raises(InputError, match="Known names: .*open|Known names: none"):
        find_model("nobody")
    with pytest.raises(InputError, match="without a model"):
        find_model(tmp_path)


@pytest.mark.parametrize("name", ["FLAME2020.pkl", "01_MorphableModel.mat", "model2019.h5", "sfm.bin"])
def test_foreign_formats_are_refused_unopened(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(InputError, match="not supported yet"):
        find_model(path)


def test_a_converted_model_is_found_by_path_and_read_once(model, tmp_path):
    path = tmp_path / "mine.npz"
    save_model(model, path)
    assert find_model(path) is find_model(path)
    info = model_info(path)
    assert info["vertices"] == len(model.mean) and info["expressions"] == list(model.expression_names)
    save_model(model.replace(name="other"), path)
    assert find_model(path).name == "other"
    with pytest.raises(InputError, match=r"must end in \.npz"):
        convert(path, tmp_path / "out.obj")
    convert(path, tmp_path / "copy.npz")
    assert load_model(tmp_path / "copy.npz").name == "other"


def test_an_unwritable_place_keeps_what_was_there(model, tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        save_model(model, tmp_path / "no such folder" / "m.npz")


def test_the_embedded_model_is_small_and_complete():
    path = list_models().get("open")
    if path is None:
        pytest.skip("the open model has not been built (experiments/build_open_face.py)")
    assert path.stat().st_size <= 10 * 2**20
    model = find_model("open")
    assert len(model.expression_names) >= 52 and "jawOpen" in model.expression_names
    span = np.ptp(np.asarray(model.mean), axis=0)
    assert (span > [120, 180, 140]).all() and (span < [600, 450, 450]).all()  # a head in millimetres


def test_what_is_derived_from_a_model_is_kept_for_the_same_one_alone():
    asked = []
    count = kept(lambda model: asked.append(model) or len(asked))
    first, second = tiny_model(), tiny_model()
    assert [count(first), count(first), count(second), count(second), count(first)] == [1, 1, 2, 2, 3]
    assert [id(model) for model in asked] == [id(first), id(second), id(first)]
