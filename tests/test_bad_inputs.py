"""Bad input: one clear message that names the file and the remedy, no traceback, the right exit status, and
the good photographs done.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from facefit.cli import main

SAMPLE = Path(__file__).resolve().parents[1] / "facefit" / "data" / "astronaut.jpg"


def text(path: Path) -> None:
    path.write_text("This is not a picture.\n" * 20)


def truncated(path: Path) -> None:
    path.write_bytes(SAMPLE.read_bytes()[:20000])


def without_a_face(path: Path) -> None:
    ramp = np.linspace(60, 200, 320, dtype=np.uint8)
    cv2.imwrite(str(path), np.broadcast_to(ramp, (240, 320)))


def one_pixel(path: Path) -> None:
    cv2.imwrite(str(path), np.full((1, 1, 3), 128, np.uint8))


def huge(path: Path) -> None:
    """A PNG of 20,000 x 20,000 grey pixels in 50 kB: what would be 1.2 GB once decoded."""
    side, packer = 20000, zlib.compressobj(9)
    row = bytes(1 + side // 8)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def empty(path: Path) -> None:
    path.touch()


def missing(path: Path) -> None:
    assert not path.exists()


def folder(path: Path) -> None:
    path.mkdir()


def thin(path: Path) -> None:
    """Three thousand times as wide as high: nothing is left of its height in a detector's reduced copy."""
    cv2.imwrite(str(path), np.full((16, 48000), 128, np.uint8))


def link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("other.jpg"))
    path.with_name("other.jpg").symlink_to(path)


BAD_PHOTOS = [
    (text, "photo.jpg", 2, "JPEG"),
    (truncated, "photo.jpg", 1, "damaged"),
    (without_a_face, "photo.jpg", 1, "--landmarks"),
    (one_pixel, "photo.png", 1, "larger"),
    (huge, "photo.png", 2, "400 million pixels are too many"),
    (thin, "photo.png", 1, "--landmarks"),
    (empty, "photo.jpg", 2, "empty"),
    (missing, "photo.jpg", 2, "Check the path"),
    (folder, "photo.jpg", 2, "Name the"),
    (link_to_nowhere, "photo.jpg", 2, "leads to no file"),
    (text, "with space and ümläut 写真.jpg", 2, "JPEG"),
]


@pytest.mark.parametrize(("make", "name", "status", "remedy"), BAD_PHOTOS)
def test_a_bad_photograph_gets_one_message_and_the_right_status(tmp_path, capfd, make, name, status, remedy):
    photo, out = tmp_path / name, tmp_path / "out"
    make(photo)
    assert main(["fit", str(photo), "-o", str(out)]) == status
    message = the_error(capfd.readouterr().err)
    assert str(photo) in message and remedy in message
    assert not out.exists()


def the_error(standard_error: str) -> str:
    """The error message; fails unless there is exactly one and no traceback."""
    assert "Traceback" not in standard_error
    lines = standard_error.splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    assert len(errors) == 1, standard_error
    return "\n".join(lines[errors[0] :])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "nonsense"], ["nonsense", "open"]),
        (["--model", "face.pkl"], ["face.pkl"]),
        (["--face", "second"], ["second", "largest"]),
        (["--face", "0"], ["0", "largest"]),
        (["--landmarks", "nowhere.pts"], ["nowhere.pts", "Check the path"]),
        (["--landmarks", "a.pts", "b.pts"], ["2 landmark files for 1", "same order"]),
        (["--focal", "-5"], ["-5", "estimated"]),
    ],
)
def test_a_wrong_argument_is_named_before_any_work(tmp_path, capfd, arguments, words):
    assert main(["fit", str(SAMPLE), "-o", str(tmp_path / "out"), *arguments]) == 2
    message = the_error(capfd.readouterr().err)
    assert all(word in message for word in words)
    assert not (tmp_path / "out").exists()


def test_an_empty_argument_is_told_from_the_folder_one_is_in(tmp_path, capfd):
    """As a shell's unset variable gives it."""
    for arguments in (["fit", str(SAMPLE), "", "-o", str(tmp_path / "out")], ["fit", str(SAMPLE), "-o", ""]):
        assert main(arguments) == 2
        assert "An argument is empty" in the_error(capfd.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--face", "2"], ["one face was found", "largest"]),
        (["--face", "9999,20"], ["512 x 512"]),
        (["--focal", "35"], ["35", "512 pixels long", "millimetres"]),  # of the lens, not of the picture
    ],
)
def test_an_argument_that_does_not_suit_the_photograph_names_both(tmp_path, capfd, arguments, words):
    assert main(["fit", str(SAMPLE), "-o", str(tmp_path / "out"), *arguments]) == 2
    message = the_error(capfd.readouterr().err)
    assert all(word in message for word in [str(SAMPLE), *words])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("points", [np.zeros((67, 2)), np.full((68, 2), np.nan), np.full((68, 2), "a")])
def test_a_landmark_file_without_68_points_is_named_with_what_it_should_hold(tmp_path, capfd, points):
    file = tmp_path / "points.npy"
    np.save(file, points)
    assert main(["fit", str(SAMPLE), "-o", str(tmp_path / "out"), "--landmarks", str(file)]) == 2
    message = the_error(capfd.readouterr().err)
    assert str(file) in message and "68 iBUG points" in message


def test_a_damaged_model_file_is_named(tmp_path, capfd):
    from facefit.model.store import EMBEDDED

    file, whole = tmp_path / "face.npz", EMBEDDED["open"].read_bytes()
    middle = len(whole) // 2
    scratched = whole[:middle] + bytes(2000) + whole[middle + 2000 :]
    for content in (b"", b"PK\3\4" + bytes(5000), whole[:middle], scratched):
        file.write_bytes(content)
        assert main(["fit", str(SAMPLE), "-o", str(tmp_path / "out"), "--model", str(file)]) == 2
        message = the_error(capfd.readouterr().err)
        assert str(file) in message and "again" in message


@pytest.mark.parametrize("kind", ["file", "inside a file", "no permission", "too long a name"])
def test_an_output_folder_that_cannot_be_written_is_found_before_the_work(tmp_path, capfd, kind):
    out = tmp_path / "out"
    if kind == "too long a name":
        out = tmp_path / ("x" * 300)
    elif kind == "no permission":
        if os.geteuid() == 0:  # root may write anywhere except where the kernel itself makes the files
            out = Path("/proc/facefit")
            if not Path("/proc").is_dir():
                pytest.skip("needs a user without privileges, or /proc")
        else:
            out.mkdir(mode=0o500)
    else:
        (tmp_path / "out").write_text("already here")
        out = out if kind == "file" else out / "deeper"
    assert main(["fit", str(SAMPLE), "-o", str(out)]) == 2
    captured = capfd.readouterr().err
    assert str(out) in the_error(captured) and "after -o" in captured
    assert "%" not in captured  # no progress: nothing was begun


@pytest.mark.slow
def test_a_photograph_with_an_odd_name_is_fitted_like_any_other(tmp_path):
    """And, as a process of its own: the command exists, reports on standard output, prints no traceback."""
    photo, out = tmp_path / "für Anna & 写真 (1).jpg", tmp_path / "mein Ordner"
    shutil.copy(SAMPLE, photo)
    done = subprocess.run(
        [sys.executable, "-m", "facefit", "fit", str(photo), "-o", str(out), "--preset", "fast"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(photo) in done.stdout and "Traceback" not in done.stderr
    assert (out / "für Anna & 写真 (1).overlay.png").is_file()
    assert json.loads((out / "summary.json").read_text())["photos"][0]["file"] == str(photo)


@pytest.mark.slow
def test_one_bad_photograph_among_five_good_ones_spoils_only_itself(tmp_path, capfd):
    pixels = cv2.imread(str(SAMPLE))
    photos = []
    for number in range(5):
        photos.append(tmp_path / f"good{number}.jpg")
        cv2.imwrite(str(photos[-1]), np.roll(pixels, 5 * number, axis=1))
    bad = tmp_path / "bad.jpg"
    truncated(bad)
    photos.insert(2, bad)
    out = tmp_path / "out"
    assert main(["fit", *map(str, photos), "-o", str(out), "--preset", "fast"]) == 1
    assert str(bad) in the_error(capfd.readouterr().err)
    entries = json.loads((out / "summary.json").read_text())["photos"]
    assert [entry["file"] for entry in entries] == [str(photo) for photo in photos]
    assert [entry["outcome"].startswith("failed") for entry in entries] == [
        False,
        False,
        True,
        False,
        False,
        False,
    ]
    assert len(list(out.glob("good*.overlay.png"))) == 5
