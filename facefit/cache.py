"""The user's cache folder, and in it the compiled programs that make every run after the first one start quickly."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path

_OFF = ("off", "0", "none", "no")


def folder() -> Path | None:
    """Where facefit may keep files between runs; None when the user switched that off.

    FACEFIT_CACHE names the folder, or is "off". Otherwise the platform's convention: XDG_CACHE_HOME or ~/.cache on
    Linux, ~/Library/Caches on macOS, LOCALAPPDATA on Windows. The folder need not exist.
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
    """Where compiled programs go: one folder a JAX version and kind of processor, since a home folder may be shared
    between machines and a program compiled for one processor can be wrong for another."""
    base = folder()
    if base is None:
        return None
    import jaxlib

    processor = hashlib.sha256(_processor().encode()).hexdigest()[:8]
    return base / "compiled" / f"jaxlib-{jaxlib.__version__}-{platform.machine().lower()}-{processor}"


def writable(path: Path) -> bool:
    """Whether files can be made in `path`, tried for real (permission bits say little to root and on network disks)."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path, prefix=".facefit-"):
            return True
    except OSError:
        return False


def enable() -> Path | None:
    """Lets JAX keep every compiled program on disk. Called by the command line and by `facefit.fit`, never by an import.

    A cache folder that the caller already gave JAX (JAX_COMPILATION_CACHE_DIR) stays. Never fails: without a writable
    folder everything works, and is compiled again in every process.

    Returns:
        the folder in use, or None.
    """
    import jax

    if jax.config.jax_compilation_cache_dir:
        return Path(jax.config.jax_compilation_cache_dir)
    path = compiled_folder()
    if path is None or not writable(path):
        return None
    jax.config.update("jax_compilation_cache_dir", str(path))
    # JAX keeps only programs that took a second to compile; a fit is made of dozens of smaller ones.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path


def _processor() -> str:
    """What tells processors apart whose machine code differs: the instruction set flags where the system lists them."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    except OSError:
        pass
    return platform.processor()
