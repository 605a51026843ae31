"""Compiles csrc/cpu.cc into the library that native.py loads: `python -m facefit_kernels.native_build`."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SOURCE = FOLDER / "csrc" / "cpu.cc"
LIBRARY = FOLDER / ("libfacefit_kernels.dylib" if sys.platform == "darwin" else "libfacefit_kernels.so")

# -ffp-contract=off: a fused multiply-add rounds once where the reference rounds twice, and the face indices
# of both must be equal. -O3 without -march: a wheel runs on any machine of its architecture.
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-ffp-contract=off", "-fno-math-errno")


def compiler() -> str | None:
    """Path of the C++ compiler: $CXX where it is set, else the first of c++, g++, clang++; None where there
    is none.
    """
    wanted = os.environ.get("CXX")
    names = (wanted,) if wanted is not None else ("c++", "g++", "clang++")
    return next((path for path in map(shutil.which, names) if path), None)


def header_folder() -> Path | None:
    """The XLA FFI headers that jaxlib ships, found without importing it; None where there is no jaxlib."""
    spec = importlib.util.find_spec("jaxlib")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "include"
    return folder if (folder / "xla" / "ffi" / "api" / "ffi.h").is_file() else None


def build(output: Path = LIBRARY) -> str:
    """Compiles the library to `output`; returns a sentence that says what happened.

    Nothing is raised: without a compiler or headers, or where compiling fails, facefit works with the
    plain-JAX reference, only slower. `output` is replaced whole, so that a process that has the old one
    loaded keeps it.
    """
    command, headers = compiler(), header_folder()
    if os.environ.get("FACEFIT_NO_NATIVE"):
        return "native kernels not built: FACEFIT_NO_NATIVE is set"
    if command is None:
        return "native kernels not built: no C++ compiler found (the slower reference is used)"
    if headers is None:
        return "native kernels not built: the headers of jaxlib were not found (the slower reference is used)"
    partial = output.with_name(f"{output.name}.{os.getpid()}")
    done = subprocess.run(
        [command, *FLAGS, f"-I{headers}", f"-I{SOURCE.parent}", str(SOURCE), "-o", str(partial)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        reason = f"{command} failed (the slower reference is used)\n{done.stderr[-4000:]}"
        return f"native kernels not built: {reason}"
    os.replace(partial, output)
    return f"native kernels built: {output.name}"


def platform_tag() -> str:
    """The wheel platform tag of what `build` makes here."""
    import sysconfig

    if sys.platform == "darwin":
        # The compiler targets the machine it runs on, whatever the interpreter was built for.
        release = "_".join(platform.mac_ver()[0].split(".")[:1] + ["0"])
        return f"macosx_{release}_{platform.machine()}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


if __name__ == "__main__":
    message = build()
    print(message)
    sys.exit(0 if "not built" not in message else 1)
