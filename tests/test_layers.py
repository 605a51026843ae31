"""The layers of the project: imports point downwards only, and setup.cfg names every package."""

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The longest matching prefix gives a module's layer.
LAYERS = {
    "facefit_kernels": 0,
    "facefit.rotations": 0,
    "facefit.color": 0,
    "facefit.errors": 0,
    "facefit.cache": 0,
    "facefit.starts": 0,
    "facefit.model": 1,
    "facefit.photo": 1,
    "facefit.metrics": 1,
    "facefit.render": 2,
    "facefit.energy": 3,
    "facefit.export": 3,
    "facefit.synthesis": 3,
    "facefit.correspondence": 3,
    "facefit.fit": 4,
    "facefit.encoder": 4,
    "facefit.evaluate": 4,
    "facefit": 5,
    "facefit.prediction": 5,
    "facefit.cli": 5,
    "experiments": 6,
    "benchmarks": 6,
}
APART = ("facefit.fit", "facefit.encoder", "facefit.evaluate")


def unit(module: str) -> str | None:
    """The entry of LAYERS that a module belongs to; None for a module of another project."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in LAYERS:
            return ".".join(parts[:length])
    return None


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[0] == "kernels":
        parts[0] = "facefit_kernels"
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, name: str, is_package: bool, known: set[str]) -> list[str]:
    """Full names of what a module imports, inside functions and relative ones too."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = name.split(".") if is_package else name.split(".")[:-1]
                kept = package[: len(package) - node.level + 1]
                base = ".".join(kept + ([node.module] if node.module else []))
            # `from facefit import fit` is an import of the subpackage, not of the whole.
            found += [f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names]
    return found


def violations(modules: dict[str, tuple[str, bool]]) -> list[str]:
    wrong = []
    for name, (source, is_package) in modules.items():
        here = unit(name)
        for target in imports(source, name, is_package, set(modules)):
            there = unit(target)
            if there is None or there == here:
                continue
            if LAYERS[there] > LAYERS[here] or (here in APART and there in APART):
                wrong.append(f"{name} (layer {LAYERS[here]}) imports {target} (layer {LAYERS[there]})")
    return wrong


def project_modules() -> dict[str, tuple[str, bool]]:
    modules = {}
    for folder in ("facefit", "kernels", "experiments", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            modules[module_name(path)] = (path.read_text(encoding="utf-8"), path.name == "__init__.py")
    return modules


def test_imports_point_downwards():
    modules = project_modules()
    assert len(modules) > 20
    assert violations(modules) == []


def test_every_module_has_a_layer():
    build_only = {"facefit_kernels"}
    assert [name for name in project_modules() if unit(name) is None and name not in build_only] == []
    # A new module directly in facefit/ would silently count as the top layer.
    loose = {name for name in project_modules() if name.count(".") == 1 and name.startswith("facefit.")}
    assert {name for name in loose if unit(name) == "facefit"} <= {
        "facefit.__main__",
        "facefit.api",
        "facefit.doctor",
    }


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("facefit.model.basis", "import facefit.render.camera"),
        ("facefit.model.basis", "from facefit import render"),
        ("facefit.model.basis", "from ..render import camera"),
        ("facefit.fit.solver", "from facefit.encoder.networks import Encoder"),
        ("facefit_kernels.texturing.op", "from facefit.color import srgb_to_linear"),
        ("facefit.render.renderer", "def f():\n    from facefit.fit import solver"),
    ],
)
def test_an_upward_or_sideways_import_is_found(name, source):
    modules = {"facefit": ("", True), "facefit.render": ("", True), "facefit.encoder": ("", True)}
    found = violations({**modules, name: (source, False)})
    if name.startswith("facefit_kernels"):
        found += [t for t in imports(source, name, False, set()) if t.startswith("facefit.")]
    assert found


def test_kernels_never_import_facefit():
    for name, (source, is_package) in project_modules().items():
        if name.startswith("facefit_kernels"):
            for target in imports(source, name, is_package, set()):
                assert target.split(".")[0] != "facefit", f"{name} imports {target}"


def test_setup_names_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    there = {
        name
        for name, (_, is_package) in project_modules().items()
        if is_package and name.startswith("facefit")
    }
    assert sorted(listed) == sorted(there)


def test_setup_names_every_data_file_and_every_library():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    shipped = set()
    for package, patterns in config["options.package_data"].items():
        folder = ROOT / package.replace(".", "/").replace("facefit_kernels", "kernels")
        shipped |= {path for pattern in patterns.split() for path in folder.glob(pattern)}
    files = (path for folder in ("facefit", "kernels") for path in (ROOT / folder).rglob("*"))
    left_out = [
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and path.suffix not in (".py", ".pyc") and path not in shipped
    ]
    assert left_out == []

    # What training alone needs is an extra; its importers say so where it is missing.
    lists = config["options"]["install_requires"], config["options.extras_require"]["train"]
    required = {re.split(r"[\[<>=]", line)[0] for lines in lists for line in lines.split()}
    imported = set()
    for name, (source, is_package) in project_modules().items():
        if (
            name.startswith("facefit") and name != "facefit_kernels.build_backend"
        ):  # runs while installing only
            imported |= {target.split(".")[0] for target in imports(source, name, is_package, set())}
    names = {"cv2": "opencv-python-headless", "dlib": "dlib-bin", "PIL": "pillow"}
    names["orbax"] = "orbax-checkpoint"
    foreign = imported - set(sys.stdlib_module_names) - {"facefit", "facefit_kernels", "native_build"}
    assert {names.get(name, name) for name in foreign} <= required | {"absl"}  # which grain brings


def test_files_stay_short_and_say_what_they_are_for():
    for name, (source, _) in project_modules().items():
        assert len(source.splitlines()) <= 500, f"{name} is too long: split it"
        assert not source.strip() or ast.get_docstring(ast.parse(source)), f"{name} has no opening sentence"
