"""Networks in files: trained encoders as .npz without pickle, and ImageNet weights for ResNet-50.

ImageNet layout: an .npz whose entries are the tensors of torchvision's `resnet50` state dictionary, under
their names there (`conv1.weight`, `bn1.running_mean`, `layer1.0.conv1.weight`,
`layer1.0.downsample.0.weight`, ...), convolutions (out, in, height, width); `fc.*` and `num_batches_tracked`
are not read. Where PyTorch is at hand, `numpy.savez("resnet50.npz", **{k: v.numpy() for k, v in
model.state_dict().items()})` writes it.
"""

from __future__ import annotations

import functools
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from facefit.encoder.networks import BACKBONES, ConfidenceNetwork, Encoder, ResNet50, make_confidence_network
from facefit.errors import InputError
from facefit.model.npz import read_arrays, write_arrays

FORMAT = "facefit-encoder"
VERSION = 4
EMBEDDED = "open_encoder.npz"
_MOST_ARRAYS = 1000  # ResNet-50 has 320


class TrainedEncoder(NamedTuple):
    """An encoder as read from its file.

    Attributes:
        encoder, confidence: the networks; `confidence` is None where no C-Net was trained: the mean is taken.
        size: side of the crops it was trained for, pixels.
        model: name of the face model it predicts coefficients of.
        facts: what else the file says of its training, one sentence.
    """

    encoder: Encoder
    confidence: ConfidenceNetwork | None
    size: int
    model: str
    facts: str


def named_arrays(module: nnx.Module) -> dict[str, np.ndarray]:
    """Every parameter and statistic of a network by its path, "heads.identity.kernel"."""
    state = nnx.state(module)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {_name(path): np.asarray(leaf) for path, leaf in leaves}


def _name(path) -> str:
    # An nnx state's leaves end in the variable's own `.value`, which says nothing.
    words = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
    return ".".join(word for word in words if word != "value")


def set_arrays(module: nnx.Module, arrays: dict[str, np.ndarray], where: str) -> None:
    """Sets every parameter and statistic of a network from arrays of the same names and shapes, in float32.

    Raises:
        InputError: one is missing or of another shape.
    """

    def pick(path, leaf):
        name = _name(path)
        if name not in arrays or arrays[name].shape != leaf.shape:
            found = "missing" if name not in arrays else f"of shape {arrays[name].shape}"
            raise InputError(f"{where}: {name} is {found}; it must be of shape {leaf.shape}.")
        return jnp.asarray(arrays[name], leaf.dtype)

    nnx.update(module, jax.tree_util.tree_map_with_path(pick, nnx.state(module)))


def save_encoder(trained: TrainedEncoder, path: str | Path) -> None:
    """Writes networks as .npz: parameters in half precision, statistics, which may be tiny, in single.

    Raises:
        InputError: the file cannot be written.
        ValueError: a number is not finite in half precision.
    """
    encoder = trained.encoder
    counts = [encoder.heads[name].out_features for name in ("identity", "expression", "albedo")]
    arrays = {
        "format": np.asarray(FORMAT),
        "version": np.asarray(VERSION, np.int32),
        "backbone": np.asarray(encoder.name),
        "counts": np.asarray(counts, np.int32),
        "size": np.asarray(trained.size, np.int32),
        "model": np.asarray(trained.model),
        "facts": np.asarray(trained.facts),
    }
    networks = {"encoder": encoder} | ({"confidence": trained.confidence} if trained.confidence else {})
    for prefix, network in networks.items():
        for name, values in named_arrays(network).items():
            statistic = name.endswith((".mean", ".var"))
            kept = values if statistic else values.astype(np.float16)
            if not np.isfinite(kept).all():
                raise ValueError(f"{prefix}.{name} is not finite in half precision")
            arrays[f"{prefix}/{name}"] = kept
    write_arrays(arrays, path)


def load_encoder(path: str | Path) -> TrainedEncoder:
    """Reads what `save_encoder` wrote.

    Raises:
        InputError: no such file, not one of ours, or damaged.
    """
    return _from_arrays(read_arrays(path, max_members=_MOST_ARRAYS), str(path))


@functools.cache
def embedded_encoder() -> TrainedEncoder:
    """The trained encoder that comes with facefit.

    Raises:
        InputError: this installation has none.
    """
    file = resources.files(__package__).joinpath(EMBEDDED)
    if not file.is_file():
        raise InputError("No trained encoder comes with this installation. Give one: --encoder FILE.npz.")
    with resources.as_file(file) as path:
        return load_encoder(path)


def _from_arrays(arrays: dict[str, np.ndarray], where: str) -> TrainedEncoder:
    if str(arrays.get("format", "")) != FORMAT:
        raise InputError(f"{where}: no encoder of facefit. Export one with experiments/export_encoder.py.")
    try:
        version, backbone, size = int(arrays["version"]), str(arrays["backbone"]), int(arrays["size"])
        counts = tuple(int(count) for count in arrays["counts"])
        model, facts = str(arrays["model"]), str(arrays["facts"])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{where}: damaged ({error!r}). Export it again.") from None
    if version > VERSION:
        raise InputError(f"{where}: written by a newer facefit. Update facefit.")
    if version < VERSION:
        raise InputError(
            f"{where}: an encoder of an older facefit, whose network was another. Train it again."
        )
    sane = backbone in BACKBONES and len(counts) == 3 and all(0 < count <= 2000 for count in counts)
    if not sane or not 16 <= size <= 1024:
        raise InputError(f"{where}: damaged (backbone {backbone!r}, counts {counts}, size {size}).")
    # Built without numbers: the file has them all.
    encoder = _empty(lambda: Encoder(counts, nnx.Rngs(0), backbone, size))
    _fill(encoder, arrays, "encoder/", where)
    confidence = None
    if any(name.startswith("confidence/") for name in arrays):
        confidence = _empty(lambda: make_confidence_network(encoder, 0))
        _fill(confidence, arrays, "confidence/", where)
    return TrainedEncoder(encoder, confidence, size, model, facts)


def _empty(make):
    graph, shapes = nnx.split(nnx.eval_shape(make))
    return nnx.merge(graph, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes))


def _fill(network: nnx.Module, arrays: dict[str, np.ndarray], prefix: str, where: str) -> None:
    own = {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
    set_arrays(network, own, where)


def load_imagenet(encoder: Encoder, path: Path) -> None:
    """Sets a ResNet-50 backbone to ImageNet weights (layout: see the module's own text); heads stay zero.

    Raises:
        InputError: the backbone is another, or the file is missing, incomplete, or of other shapes.
    """
    if not isinstance(encoder.backbone, ResNet50):
        raise InputError(f"{path}: ImageNet weights are for the backbone resnet50.")
    arrays = read_arrays(path, max_members=_MOST_ARRAYS)
    found = {}
    for name, leaf in named_arrays(encoder.backbone).items():
        theirs = _torchvision_name(name)
        if theirs not in arrays:
            raise InputError(f"{path}: {theirs} is missing. Write the file from torchvision's resnet50.")
        values = arrays[theirs]
        found[name] = values.transpose(2, 3, 1, 0) if leaf.ndim == 4 and values.ndim == 4 else values
    set_arrays(encoder.backbone, found, str(path))


def _torchvision_name(name: str) -> str:
    """ "layer1.0.shortcut.conv.kernel" -> "layer1.0.downsample.0.weight"."""
    name = name.replace("shortcut.conv", "downsample.0").replace("shortcut.bn", "downsample.1")
    head, _, tail = name.rpartition(".")
    statistics = {"mean": "running_mean", "var": "running_var"}
    return f"{head}.{statistics.get(tail, 'bias' if tail == 'bias' else 'weight')}"
