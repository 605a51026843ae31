"""The command line and the package's front door: cheap to start, clear in its words, right in its exit
statuses.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_fit import tiny_fit

import facefit
from facefit.cli import main
from facefit.cli.progress import progress
from facefit.errors import InputError, PhotoError
from facefit.fit import api

SAMPLE = Path(__file__).resolve().parents[1] / "facefit" / "data" / "astronaut.jpg"


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_and_asking_for_help_loads_nothing_heavy():
    """Counted in modules and not in seconds, so that a busy machine cannot make it fail."""
    heavy = "[name for name in ('jax', 'flax', 'cv2', 'dlib', 'trimesh', 'scipy') if name in sys.modules]"
    assert python(f"import sys, facefit; print({heavy})").strip() == "[]"
    code = "import sys, facefit.cli\ntry: facefit.cli.main(['fit', '--help'])\n"
    code += "except SystemExit: pass\nprint('heavy', {})"
    assert "heavy []" in python(code.format(heavy))


@pytest.mark.parametrize(
    "order",
    [
        "import facefit; import facefit.fit.storage as storage; import facefit.fit.subject",
        "import facefit.fit.storage as storage; import facefit",
        "from facefit.fit import storage; from facefit import fit; assert fit is facefit_fit()",
        "import facefit; facefit.fit; import facefit.fit.storage as storage; facefit.fit.storage.save",
    ],
)
def test_fit_is_a_function_and_a_package_in_every_order_of_imports(order):
    code = f"def facefit_fit():\n import facefit; return facefit.fit\n{order}\nimport facefit\n"
    code += "assert callable(facefit.fit) and callable(storage.load)\ntry: facefit.fit([])\n"
    code += "except facefit.InputError as error: print(error)"
    assert "at least one file" in python(code)


def test_fit_shows_its_arguments():
    assert list(inspect.signature(facefit.fit).parameters)[:3] == ["paths", "model", "preset"]


def test_every_public_name_can_be_had():
    for name in facefit.__all__:
        assert getattr(facefit, name) is not None
    with pytest.raises(AttributeError):
        facefit.nonsense  # noqa: B018


def test_presets_of_the_command_line_are_those_of_the_fit():
    from facefit.fit.settings import PRESETS

    assert tuple(PRESETS) == api.PRESETS


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["--version"], 0), ([], 2), (["frobnicate"], 2), (["fit"], 2)]
)
def test_help_and_mistakes_have_the_usual_exit_status(arguments, status, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == status
    assert "facefit" in "".join(capsys.readouterr())


def stand_in(monkeypatch, behaviour):
    """Replaces the work of `facefit fit`, for tests of what the command line makes of its outcome."""
    monkeypatch.setattr(api, "fit_with_photographs", lambda *arguments: behaviour())


def raising(error):
    def behaviour():
        raise error

    return behaviour


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("a.jpg: wrong. Do this."), 2, "error: a.jpg: wrong. Do this."),
        (PhotoError("a.jpg: no face. Do that."), 1, "error: a.jpg: no face. Do that."),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (MemoryError(), 1, "not enough memory"),
        (ZeroDivisionError("oops"), 1, "FACEFIT_DEBUG=1"),
    ],
)
def test_errors_become_one_message_and_a_status(monkeypatch, tmp_path, capsys, error, status, words):
    monkeypatch.delenv("FACEFIT_DEBUG", raising=False)
    stand_in(monkeypatch, raising(error))
    out = tmp_path / "out"
    assert main(["fit", str(SAMPLE), "-o", str(out)]) == status
    captured = capsys.readouterr()
    assert words in captured.err and "Traceback" not in captured.err and captured.out == ""
    assert not out.exists()  # made for the check, and taken away since nothing came of it


def test_debugging_shows_the_traceback(monkeypatch, tmp_path):
    monkeypatch.setenv("FACEFIT_DEBUG", "1")
    stand_in(monkeypatch, raising(ZeroDivisionError("oops")))
    with pytest.raises(ZeroDivisionError):
        main(["fit", str(SAMPLE), "-o", str(tmp_path / "out")])


def test_failed_photographs_are_named_the_others_reported_and_the_status_is_one(
    monkeypatch, tmp_path, capsys
):
    fit = tiny_fit(("good.jpg",))
    fit.report["photos"] = [
        {"file": "bad.jpg", "outcome": "failed: bad.jpg: no face was found. Crop it.", "warnings": []},
        {
            "file": "good.jpg",
            "outcome": "fitted",
            "warnings": ["2 faces were found."],
            "landmark_rmse_px": 1.25,
            "landmark_rmse_percent": 2.5,
        },
    ]

    class Photo:
        path, pixels = "good.jpg", np.zeros((*fit.views[0].size, 3), np.uint8)

    stand_in(monkeypatch, lambda: (fit, (Photo,)))
    assert main(["fit", str(SAMPLE), "-o", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "error: bad.jpg: no face was found. Crop it." in captured.err
    assert "warning: good.jpg: 2 faces were found." in captured.err
    assert "good.jpg: fitted, landmarks within 1.2 px (2.5 %" in captured.out
    assert (tmp_path / "good.overlay.png").is_file()


@pytest.mark.parametrize(("percent", "warned"), [(5.0, False), (40.0, True), (np.nan, True)])
def test_a_fit_that_misses_its_landmarks_comes_with_a_warning(percent, warned):
    fit = tiny_fit(("a.jpg",))
    fit = dataclasses.replace(fit, views=(dataclasses.replace(fit.views[0], landmark_rmse_percent=percent),))
    entries = [{"file": "a.jpg", "outcome": "read", "warnings": []}]
    report = api._with_report(fit, entries, {}, "tiny", "default").report
    assert bool(report["photos"][0]["warnings"]) is warned


def test_progress_is_plain_lines_when_nobody_watches(capsys):
    with progress() as show:
        show("one", 0.0)
        show("one", 0.1)
        show("two", 0.5)
    assert capsys.readouterr().err.splitlines() == ["[  0%] one", "[ 50%] two"]


@pytest.mark.parametrize(
    ("face", "words"), [("largest", "largest"), (2, "2"), ("2", "2"), ((10, 20.5), "10,20.5"), ("3,4", "3,4")]
)
def test_a_face_is_chosen_in_any_of_the_documented_ways(face, words):
    assert api.face_choice(face) == words


@pytest.mark.parametrize("face", ["", "0", "-1", "left", "1,2,3", "1;2", 0])
def test_any_other_choice_of_a_face_is_refused(face):
    with pytest.raises(InputError, match="largest"):
        api.face_choice(face)


def test_models_can_be_listed_and_looked_into(capsys):
    assert main(["models", "list"]) == 0
    assert "open\t" in capsys.readouterr().out
    assert main(["models", "info", "open"]) == 0
    assert "jawOpen" in capsys.readouterr().out


def test_doctor_finds_this_machine_able_to_fit(capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert all(word in told for word in ("JAX", "kernels", "open", "Face Mesh", "cache"))


def test_python_and_the_command_line_agree(tmp_path, capsys):
    """`facefit.fit(...).save(...)` writes what `facefit fit` writes, and both load back, whatever the files
    are called.
    """
    photo = tmp_path / "für Anna & 写真 (1).jpg"
    shutil.copy(SAMPLE, photo)
    fit = facefit.fit(photo, preset="fast")
    fit.save(tmp_path / "by python")
    assert main(["fit", str(photo), "-o", str(tmp_path / "by command"), "--preset", "fast"]) == 0
    assert f"{photo}: fitted" in capsys.readouterr().out
    folders = [tmp_path / "by python", tmp_path / "by command"]
    names = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert names[0] == names[1] and f"{photo.stem}.overlay.png" in names[0]
    for folder in folders:
        again = facefit.Fit.load(folder)
        np.testing.assert_array_equal(again.identity, fit.identity)
        np.testing.assert_array_equal(again.views[0].expression, fit.views[0].expression)
    summary = json.loads((folders[1] / "summary.json").read_text())
    assert summary["photos"][0]["outcome"] == "fitted" and summary["seconds"]["total"] > 0
    assert summary["photos"][0]["landmark_rmse_percent"] < 10
