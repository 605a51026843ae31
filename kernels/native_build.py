"""Compiles the native kernels, csrc/cpu.cc and, where there is nvcc, csrc/cuda.cu:
`python -m facefit_kernels.native_build`.
"""

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
CUDA_SOURCE = FOLDER / "csrc" / "cuda.cu"
CUDA_LIBRARY = FOLDER / "libfacefit_kernels_cuda.so"

# -ffp-contract=off: a fused multiply-add rounds once where the reference rounds twice, and the face indices
# of both must be equal. -O3 without -march: a wheel runs on any machine of its architecture.
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread", "-ffp-contract=off", "-fno-math-errno")

# The same arithmetic on the GPU; --ftz, since XLA's CPU code flushes denormal numbers. The diagnostics left
# out are about XLA's headers. Machine code for data centre GPUs, and for all others from Turing on an
# intermediate form that the driver compiles when it is first loaded; $FACEFIT_CUDA_ARCHITECTURES (such as
# "90") replaces both.
CUDA_FLAGS = (
    "-O3",
    "-std=c++17",
    "--shared",
    "-Xcompiler=-fPIC,-w",
    "--fmad=false",
    "--ftz=true",
    "--threads=0",
    "--diag-suppress=940,2473",
    "--expt-relaxed-constexpr",
)
_CUDA_CODE = ("arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_75,code=compute_75")


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


def cuda_compiler() -> str | None:
    """Path of nvcc: on the PATH, in $CUDA_HOME or of the PyPI package `nvidia-cuda-nvcc`; None where there
    is none.
    """
    on_path = shutil.which("nvcc")
    if on_path:
        return on_path
    homes = [Path(os.environ["CUDA_HOME"])] if os.environ.get("CUDA_HOME") else []
    spec = importlib.util.find_spec("nvidia")
    packages = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    homes += [place / name for place in packages for name in ("cu13", "cuda_nvcc")]
    return next((str(path) for home in homes if (path := home / "bin" / "nvcc").is_file()), None)


def build(output: Path = LIBRARY) -> str:
    """Compiles the CPU's library to `output`; returns a sentence that says what happened.

    Nothing is raised: without a compiler or headers, or where compiling fails, facefit works with the
    plain-JAX reference, only slower. `output` is replaced whole, so that a process that has the old one
    loaded keeps it.
    """
    command = compiler()
    why_not = _unable(command, "C++ compiler")
    if why_not:
        return f"native kernels not built: {why_not}"
    return f"native kernels {_compile([command, *FLAGS], SOURCE, output)}"


def build_cuda(output: Path = CUDA_LIBRARY) -> str:
    """Compiles the CUDA library to `output`; as `build`."""
    command = cuda_compiler()
    why_not = _unable(command, "nvcc")
    if why_not:
        return f"CUDA kernels not built: {why_not}"
    wanted = os.environ.get("FACEFIT_CUDA_ARCHITECTURES")
    codes = [f"arch=compute_{a},code=sm_{a}" for a in wanted.split()] if wanted else _CUDA_CODE
    # The PyPI package does not tell nvcc where its own files are.
    root = Path(command).resolve().parent.parent
    there = (root / "include" / "cuda_runtime.h").is_file()
    own = [f"-I{root / 'include'}", f"-L{root / 'lib'}"] if there else []
    command_line = [command, *CUDA_FLAGS, *(f"-gencode={code}" for code in codes), *own]
    return f"CUDA kernels {_compile(command_line, CUDA_SOURCE, output)}"


def _unable(command: str | None, name: str) -> str | None:
    if os.environ.get("FACEFIT_NO_NATIVE"):
        return "FACEFIT_NO_NATIVE is set"
    if command is None:
        return f"no {name} found (the slower reference is used)"
    if header_folder() is None:
        return "the headers of jaxlib were not found (the slower reference is used)"
    return None


def _compile(command: list[str], source: Path, output: Path) -> str:
    partial = output.with_name(f"{output.name}.{os.getpid()}")
    done = subprocess.run(
        [*command, f"-I{header_folder()}", f"-I{source.parent}", str(source), "-o", str(partial)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        partial.unlink(missing_ok=True)
        return f"not built: {command[0]} failed (the slower reference is used)\n{done.stderr[-4000:]}"
    os.replace(partial, output)
    return f"built: {output.name}"


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
    print(build_cuda())
    sys.exit(0 if "not built" not in message else 1)
