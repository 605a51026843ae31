"""What is kept between runs: where, by whose wish, and that a remembered program is the function it came
from.
"""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from facefit import cache


def python(code: str, folder) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"FACEFIT_CACHE": str(folder), "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compilation_cache_follows_the_user_s_wishes(monkeypatch, tmp_path):
    monkeypatch.setenv("FACEFIT_CACHE", str(tmp_path / "mine"))
    assert cache.folder() == tmp_path / "mine"
    assert cache.compiled_folder().is_relative_to(tmp_path / "mine")
    monkeypatch.setenv("FACEFIT_CACHE", "off")
    assert cache.folder() is None and cache.compiled_folder() is None
    monkeypatch.delenv("FACEFIT_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "facefit"


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    code = "from facefit import cache; print(cache.enable())\n"
    code += "import jax; print(float(jax.jit(lambda x: x + 1)(1.0)))"
    assert python(code, tmp_path / "file" / "cache").split() == ["None", "2.0"]


def test_compiled_programs_are_kept_however_small(tmp_path):
    python("from facefit import cache; import jax; cache.enable(); jax.jit(lambda x: x + 1)(1.0)", tmp_path)
    assert any(path.is_file() for path in tmp_path.rglob("jit_*"))


MODULE = """
import jax, jax.numpy as jnp
from facefit import cache
from facefit_kernels import rasterize

@cache.remembered(static_argnames=("size",))
def picture(matrix, clip, faces, size=8):
    print("traced")
    solved = jax.scipy.linalg.solve(matrix, jnp.ones(2), assume_a="pos")
    return {"solved": solved, "seen": rasterize(clip, faces, (size, size)).face_index}
"""
CALL = """
from facefit import cache; cache.enable()
import numpy as np, remembering
clip = np.asarray([[-1, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]], np.float32)
matrix, faces = np.diag([2.0, 4.0]).astype(np.float32), np.asarray([[0, 1, 2]], np.int32)
found = {name: np.asarray(value) for name, value in remembering.picture(matrix, clip, faces, 16).items()}
print(found["solved"].round(4).tolist(), found["seen"].shape, (found["seen"] == 0).sum())
"""


def test_a_second_process_does_not_even_trace_and_finds_the_same(tmp_path):
    """With a linear solve and a kernel of ours in it: a program that was only loaded needs both registered
    first.
    """
    (tmp_path / "remembering.py").write_text(MODULE)
    first, second = (python(CALL, tmp_path).splitlines() for _ in range(2))
    assert first[0] == "traced" and len(second) == 1
    assert second[0] == first[1] and second[0].startswith("[0.5, 0.25] (16, 16, 1)")


@pytest.fixture
def programs(monkeypatch, tmp_path):
    """Remembering switched on, in an empty folder."""
    monkeypatch.setattr(cache, "_programs", tmp_path / "programs")
    return tmp_path / "programs"


def power(x, exponent=2):
    """To be remembered by the tests below."""
    return {"value": x**exponent, "pair": (x.sum(), None)}


def files(folder):
    return [path for path in folder.rglob("power-*") if path.is_file()] if folder.exists() else []


def test_programs_are_told_apart_by_shape_kind_and_static_arguments(programs):
    remembered = cache.remembered(power, static_argnames=("exponent",))
    x = jnp.arange(3.0)
    for arguments in ((x,), (x, 3), (jnp.arange(4.0),), (jnp.arange(3),)):
        jax.tree.map(np.testing.assert_array_equal, remembered(*arguments), power(*arguments))
    assert len(files(programs)) == 4
    again = cache.remembered(power, static_argnames=("exponent",))  # as in another process
    jax.tree.map(np.testing.assert_array_equal, again(x, exponent=3), power(x, 3))
    assert len(files(programs)) == 4


def test_a_damaged_program_is_made_again(programs):
    cache.remembered(power)(jnp.arange(3.0))
    (file,) = files(programs)
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(cache.remembered(power)(jnp.arange(3.0))["value"], [0.0, 1.0, 4.0])
    assert file.stat().st_size > 100


def test_under_transformations_and_without_a_folder_it_is_plain_jit(programs, monkeypatch):
    remembered = cache.remembered(power)
    assert jax.grad(lambda x: remembered(x)["value"])(3.0) == 6.0
    np.testing.assert_array_equal(jax.vmap(remembered)(jnp.ones((2, 3)))["pair"][0], [3.0, 3.0])
    monkeypatch.setattr(cache, "_programs", None)
    assert remembered(jnp.float32(3.0))["value"] == 9.0
    assert not files(programs)


def test_functions_that_hide_values_are_refused():
    with pytest.raises(TypeError, match="top of a module"):
        cache.remembered(lambda x: x)


def test_old_versions_are_removed(programs):
    for number in range(6):
        (programs / f"version{number}").mkdir(parents=True)
        os.utime(programs / f"version{number}", (1000 + number, 1000 + number))
    cache.remembered(power)(jnp.arange(3.0))
    kept = {path.name for path in programs.iterdir()}
    assert kept == {"version5", "version4", cache.source_version()}
