"""Run a convolutional network that `experiments/convert_face_mesh.py` converted: a list of operations and
their weights.
"""

from __future__ import annotations

import functools
import json
from importlib import resources

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_SMALL = 64  # pixels


@functools.cache
def load(name: str) -> tuple[dict, dict[str, np.ndarray]]:
    """The graph and the float32 weights of an embedded network, "face_mesh" or "blazeface"."""
    with resources.files(__package__).joinpath(f"{name}.npz").open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        graph = json.loads(str(arrays["graph"]))
        return graph, {key: arrays[key].astype(np.float32) for key in arrays.files if key != "graph"}


def forward(graph: dict, weights: dict, images: Float[Array, "B H W 3"]) -> dict[str, Array]:
    """The network's named outputs, with a leading axis B.

    `graph` is static (a compiled function closes over it); `weights` is a pytree of arrays.
    """
    values = [images]
    for operation in graph["operations"]:
        values.append(_run(operation, weights, [values[i] for i in operation["inputs"]]))
    return {name: values[place] for name, place in graph["outputs"].items()}


def _run(operation: dict, weights: dict, inputs: list[Array]) -> Array:
    kind, x = operation["op"], inputs[0]
    if kind in ("convolution", "depthwise"):
        convolve = _convolution if kind == "convolution" else _depthwise
        x = convolve(x, weights[operation["weight"]], tuple(operation["stride"]), operation["padding"])
        return x + weights[operation["bias"]] if "bias" in operation else x
    if kind == "bias":
        return x + weights[operation["bias"]]
    if kind == "frame":
        return _frame(x.reshape(x.shape[0], -1, 3)[..., :2] / operation["stride"], operation)
    if kind == "sample":
        return _sample(x, inputs[1], operation["cells"])
    if kind == "place":
        axes, origin = inputs[1][..., :2], inputs[1][..., 2]
        return jnp.einsum("bij,bpj->bpi", axes, x) + operation["stride"] * origin[:, None]
    if kind == "add":
        return x + inputs[1]
    if kind == "prelu":
        return jnp.where(x >= 0, x, x * weights[operation["slope"]])
    if kind == "relu":
        return jnp.maximum(x, 0)
    if kind == "sigmoid":
        return jax.nn.sigmoid(x)
    if kind == "max_pool":
        size, stride = (1, *operation["size"], 1), (1, *operation["stride"], 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, size, stride, operation["padding"])
    if kind == "pad":
        return jnp.pad(x, operation["widths"])
    if kind == "reshape":
        return x.reshape(x.shape[0], *operation["shape"])
    raise ValueError(f"operation {kind!r} of a converted network is unknown: convert the network again")


def _convolution(x: Array, weight: Array, stride: tuple[int, int], padding: str) -> Array:
    if weight.shape[:2] == (1, 1):  # a matrix product, for which every backend has its best code
        return x[:, :: stride[0], :: stride[1]] @ weight[0, 0]
    return lax.conv_general_dilated(x, weight, stride, padding, dimension_numbers=_LAYOUT)


def _depthwise(x: Array, weight: Array, stride: tuple[int, int], padding: str) -> Array:
    """A depthwise convolution, weight (h, w, C, 1), as h*w shifted products: XLA fuses them into one pass on
    every backend, where its grouped convolution on the CPU is a scalar loop. Small images go through that
    loop all the same: it is compiled in a fraction of the time, and half of the layers have small images."""
    if x.shape[1] * x.shape[2] <= _SMALL:
        kernel = weight.transpose(0, 1, 3, 2)
        return lax.conv_general_dilated(
            x, kernel, stride, padding, dimension_numbers=_LAYOUT, feature_group_count=x.shape[3]
        )
    height, width = weight.shape[:2]
    pads = lax.padtype_to_pads(x.shape[1:3], (height, width), stride, padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows = (x.shape[1] - height) // stride[0] + 1
    columns = (x.shape[2] - width) // stride[1] + 1
    total = None
    for i in range(height):
        for j in range(width):
            last = (x.shape[0], i + (rows - 1) * stride[0] + 1, j + (columns - 1) * stride[1] + 1, x.shape[3])
            part = lax.slice(x, (0, i, j, 0), last, (1, *stride, 1)) * weight[i, j, :, 0]
            total = part if total is None else total + part
    return total


def _frame(points: Float[Array, "B P 2"], operation: dict) -> Float[Array, "B 2 3"]:
    """The frame of a region of the face in feature pixels: x axis along two of its points, sized by the box
    of all of them.

    Column 0 and 1 are one cell along x and y, column 2 is the origin: position = axes @ (x, y) + origin.
    """
    along = points[:, operation["axis"][1]] - points[:, operation["axis"][0]]
    along = along * lax.rsqrt((along**2).sum(-1, keepdims=True))
    rotation = jnp.stack([along, jnp.stack([-along[:, 1], along[:, 0]], -1)], 1)  # rows are the axes
    level = jnp.einsum("bpi,bji->bpj", points[:, np.asarray(operation["points"])], rotation)
    low, high = level.min(1), level.max(1)
    axes = jnp.swapaxes(rotation, 1, 2) * ((high - low) * (operation["margin"] / operation["cells"]))[:, None]
    center = jnp.einsum("bj,bji->bi", (low + high) / 2, rotation)
    origin = center - operation["cells"] / 2 * axes.sum(-1)
    return jnp.concatenate([axes, origin[..., None]], -1)


def _sample(
    features: Float[Array, "B H W C"], frame: Float[Array, "B 2 3"], cells: int
) -> Float[Array, "B K K C"]:
    """Bilinear samples on a frame's grid of cells; positions right of and below the features read zeros, as
    in TensorFlow.
    """
    grid = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), -1).astype(np.float32)
    position = jnp.einsum("bij,yxj->byxi", frame[..., :2], grid) + frame[:, None, None, :, 2]
    first = jnp.floor(position)
    part = position - first
    limit = np.array([features.shape[2], features.shape[1]], np.int32)
    low = jnp.clip(first.astype(jnp.int32), 0, limit)
    high = jnp.minimum(low + 1, limit)
    batch = jnp.arange(features.shape[0])[:, None, None]
    padded = jnp.pad(features, ((0, 0), (0, 1), (0, 1), (0, 0)))
    total = jnp.zeros((1,), features.dtype)
    for x, weight_x in ((low[..., 0], 1 - part[..., 0]), (high[..., 0], part[..., 0])):
        for y, weight_y in ((low[..., 1], 1 - part[..., 1]), (high[..., 1], part[..., 1])):
            total = total + padded[batch, y, x] * (weight_x * weight_y)[..., None]
    return total
