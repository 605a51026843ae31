"""The user's cache folder, and in it the compiled programs that make every run after the first one start
quickly.

Two layers: JAX's own persistent cache, which spares compiling, and `remembered`, which for the few large
functions of a fit also spares tracing and lowering them: by then the larger part of a start.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import pickle
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

_LAYERS = (
    "model",
    "photo",
    "render",
    "energy",
    "fit",
)  # whose code is compiled; the others only read and write files
_KEPT_VERSIONS = 3  # of the source, in the folder of remembered programs
_programs: Path | None = None  # set by `enable`
# LLVM's higher levels make compiling a quarter longer, and our programs no faster.
_LEVEL = {"xla_backend_optimization_level": 1}

_OFF = ("off", "0", "none", "no")


def folder() -> Path | None:
    """Where facefit may keep files between runs; None when the user switched that off.

    FACEFIT_CACHE names the folder, or is "off". Otherwise the platform's convention: XDG_CACHE_HOME or
    ~/.cache on Linux, ~/Library/Caches on macOS, LOCALAPPDATA on Windows. The folder need not exist.
    """
    named = os.environ.get("FACEFIT_CACHE", "")
    if named.strip().lower() in _OFF:
        return None
    if named:
        return Path(named).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "facefit"


def compiled_folder() -> Path | None:
    """Where compiled programs go: one folder a JAX version and kind of processor, since a home folder may be
    shared between machines and a program compiled for one processor can be wrong for another."""
    base = folder()
    if base is None:
        return None
    import jaxlib

    processor = hashlib.sha256(_processor().encode()).hexdigest()[:8]
    return base / "compiled" / f"jaxlib-{jaxlib.__version__}-{platform.machine().lower()}-{processor}"


def writable(path: Path) -> bool:
    """Whether files can be made in `path`, tried for real (permission bits say little to root and on network
    disks).
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".facefit-"):
            return True
    except OSError:
        return False


def enable() -> Path | None:
    """Lets JAX keep every compiled program on disk. Called by the command line and by `facefit.fit`, never by
    an import.

    A cache folder that the caller already gave JAX (JAX_COMPILATION_CACHE_DIR) stays, and nothing is kept
    besides. Never fails: without a writable folder everything works, and is compiled again in every process.

    Returns:
        the folder in use, or None.
    """
    global _programs
    import jax

    if jax.config.jax_compilation_cache_dir:
        return Path(jax.config.jax_compilation_cache_dir)
    path = compiled_folder()
    if path is None or not writable(path):
        return None
    if jax.default_backend() == "cpu":  # elsewhere compiling is what takes long, and JAX's cache spares that
        _programs = path / "programs"
    jax.config.update("jax_compilation_cache_dir", str(path))
    # JAX keeps only programs that took a second to compile; a fit is made of dozens of smaller ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path


def remembered(function: Callable | None = None, *, static_argnames: Sequence[str] = ()) -> Callable:
    """`jax.jit` for large functions: after `enable`, its programs are kept on disk whole, so that another
    process with the same source, shapes and static arguments neither traces nor lowers nor compiles.

    Called with tracers, with arrays on another device than the default one, or before `enable`, it is plain
    `jax.jit`. A stored program is native code of this user's cache folder, trusted as JAX's own cache is.

    Args:
        function: defined at the top of a module; what it computes depends on its arguments and on the
            package's files.
        static_argnames: as for `jax.jit`; their `repr` must say all there is to them.

    Raises:
        TypeError: the function is nested in another one, whose variables would be compiled into it unseen.
    """
    if function is None:
        return functools.partial(remembered, static_argnames=static_argnames)
    if function.__closure__ or "<locals>" in function.__qualname__:
        raise TypeError(f"{function.__qualname__}: only functions at the top of a module can be remembered")
    return functools.wraps(function)(_Remembered(function, tuple(static_argnames)))


class _Remembered:
    """A jitted function with the programs it has loaded or compiled."""

    def __init__(self, function: Callable, static: tuple[str, ...]):
        import jax

        self.function, self.static = function, static
        self.jitted = jax.jit(function, static_argnames=static)
        self.signature = inspect.signature(function)
        self.loaded: dict[Any, Callable] = {}

    def __call__(self, *arguments, **named):
        import jax

        if _programs is None:
            return self.jitted(*arguments, **named)
        bound = self.signature.bind(*arguments, **named)
        bound.apply_defaults()
        static = {name: bound.arguments[name] for name in self.static}
        dynamic = {name: value for name, value in bound.arguments.items() if name not in static}
        leaves, tree = jax.tree.flatten(tuple(dynamic.values()))
        if not _here(leaves) or " at 0x" in repr(static):
            return self.jitted(*arguments, **named)
        key = (tree, tuple(map(_sort, leaves)), tuple(static.values()))
        if key not in self.loaded:
            with contextlib.suppress(OSError):
                _programs.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = self._file(tree, tuple(map(_kind, leaves)), static)
            program = _load_program(file, tree)
            if program is not None:
                try:
                    result = jax.block_until_ready(program(*dynamic.values()))
                except Exception:  # noqa: BLE001  whatever is wrong with a file in a cache, it can be made again
                    file.unlink(missing_ok=True)
                else:
                    self.loaded[key] = program
                    return result
            self.loaded[key] = _compile_program(self.function, dynamic, static, file)
        return self.loaded[key](*dynamic.values())

    def lower(self, *arguments, **named):
        """As `jax.jit(function).lower`."""
        return self.jitted.lower(*arguments, **named)

    def _file(self, tree, kinds, static: dict) -> Path:
        import jax

        config = (
            jax.config.jax_enable_x64,
            jax.config.jax_default_matmul_precision,
            jax.config.jax_debug_nans,
        )
        machine = (jax.__version__, os.environ.get("XLA_FLAGS"), os.cpu_count(), len(jax.devices()))
        name = self.function.__qualname__
        parts = repr((self.function.__module__, name, str(tree), kinds, static, config, machine))
        return _programs / source_version() / f"{name}-{hashlib.sha256(parts.encode()).hexdigest()[:24]}"


@functools.cache
def source_version() -> str:
    """Changes with every file of facefit and its kernels that a remembered program may depend on."""
    import facefit_kernels

    package = Path(__file__).parent
    roots = [Path(facefit_kernels.__file__).parent, *(package / part for part in _LAYERS)]
    files = [*package.glob("*.py"), *(path for root in roots for path in root.rglob("*"))]
    digest = hashlib.sha256()
    for file in sorted(path for path in files if path.suffix in (".py", ".npz", ".so", ".dylib")):
        # The embedded model enters programs as an argument, never as a constant.
        if file.name != "open_face.npz":
            data = file.read_bytes()
            digest.update(f"{file.name}\0{len(data)}\0".encode())
            digest.update(data)
    return digest.hexdigest()[:16]


def _here(leaves: Sequence) -> bool:
    """Whether arguments are concrete values that a program for the default device can take."""
    import jax

    devices = {jax.devices()[0]}
    return not any(
        isinstance(leaf, jax.core.Tracer) or (isinstance(leaf, jax.Array) and leaf.devices() != devices)
        for leaf in leaves
    )


def _sort(leaf) -> Any:
    """Tells arguments of different kinds apart as `_kind` does, but faster: a fit asks thousands of times."""
    import jax

    if isinstance(leaf, jax.Array):
        return leaf.shape, leaf.dtype, leaf.weak_type
    return _kind(leaf)


def _kind(leaf) -> str:
    import jax

    kind = jax.typeof(leaf)
    return f"{kind.str_short()}{'w' if kind.weak_type else ''}"


@functools.cache
def _prepare_runtime() -> None:
    """Registers what lowering would: a program that was only loaded calls LAPACK and our kernels by name."""
    import facefit_kernels
    import jax
    import numpy as np

    facefit_kernels.available()
    jax.jit(jax.numpy.linalg.cholesky).lower(np.eye(2, dtype=np.float32))


def _load_program(file: Path, tree) -> Callable | None:
    import jax
    from jax.experimental import serialize_executable

    try:
        payload, result = pickle.loads(file.read_bytes())
        _prepare_runtime()
        arguments = jax.tree.structure((jax.tree.unflatten(tree, range(tree.num_leaves)), {}))
        program = serialize_executable.deserialize_and_load(payload, arguments, jax.tree.structure(result))
        os.utime(file.parent)  # in use: `_prune` leaves it alone
        return program
    except FileNotFoundError:
        return None
    except Exception:  # noqa: BLE001  written by another version, cut short, ...
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)
        return None


def _compile_program(function: Callable, dynamic: dict, static: dict, file: Path) -> Callable:
    import jax
    from jax.experimental import serialize_executable

    names = tuple(dynamic)
    positional = jax.jit(lambda *values: function(**dict(zip(names, values, strict=True)), **static))
    with _without_jax_cache():
        program = positional.lower(*dynamic.values()).compile(_LEVEL)
    with contextlib.suppress(OSError, ValueError, NotImplementedError, pickle.PicklingError):
        payload, _, result = serialize_executable.serialize(program)
        data = pickle.dumps((payload, result.unflatten(range(result.num_leaves))))
        file.parent.mkdir(parents=True, exist_ok=True)
        _prune(file.parent.parent)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as target:
            target.write(data)
        os.replace(target.name, file)
    return program


_compiling = threading.Lock(), []  # what JAX's cache was before, one entry a thread that compiles


@contextlib.contextmanager
def _without_jax_cache() -> Iterator[None]:
    """A program that JAX took from its own cache lacks the parts that storing it again needs.

    The setting is the process's: the first thread that comes in turns the cache off, the last one out turns
    it on again.
    """
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    def switch(value: bool) -> None:
        jax.config.update("jax_enable_compilation_cache", value)
        compilation_cache.reset_cache()  # JAX looks at the setting once, unless told to look again

    lock, inside = _compiling
    with lock:
        inside.append(inside[0] if inside else jax.config.jax_enable_compilation_cache)
        if len(inside) == 1:
            switch(False)
    try:
        yield
    finally:
        with lock:
            before = inside.pop()
            if not inside:
                switch(before)


def _prune(programs: Path) -> None:
    """Removes the programs of versions of the source that were not used for longest."""
    folders = sorted(
        (path for path in programs.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime
    )
    for old in folders[_KEPT_VERSIONS:]:
        shutil.rmtree(old, ignore_errors=True)


def _processor() -> str:
    """What tells processors apart whose machine code differs: the instruction set flags where the system
    lists them.
    """
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return platform.processor()
