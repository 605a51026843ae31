"""Rendering: heads of 13 and 22 thousand triangles, forward and with gradients, beside other renderers."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from facefit_kernels import available, draw, neighbors, rasterize, soft_render
from facefit_kernels.rasterization.cases import ball_case

from benchmarks import peers
from benchmarks.scenes import Scene, camera, head_scenes, moved, outer
from benchmarks.timing import compiled, peak_mib, ratio, rounds, summary
from facefit.model import crop
from facefit.render import clip_coordinates

SCALING_TRIANGLES = (2_000, 8_000, 32_000, 128_000)
SCALING_PIXELS = (112, 224, 448, 896)


class Head:
    """A head ready to be drawn: its mesh in the camera frame, its colours, and programs that draw it.

    Faces seen from behind are left out: DEODR has no gradients without that, and all draw the same picture.
    """

    def __init__(self, scene: Scene, size: tuple[int, int], batch: int = 1):
        self.size, self.batch, self.faces = size, batch, np.asarray(scene.model.faces)
        self.placed, self.colors = (np.asarray(x) for x in moved(scene, jnp.zeros(10)))
        self.matrix = np.asarray(camera(size))
        self.adjacent = np.asarray(neighbors(self.faces))
        self.gradient = np.random.default_rng(0).normal(size=(*size, 3)).astype(np.float32)
        shifts = np.linspace(0, 3, batch, dtype=np.float32)[:, None, None]
        self.many = self.placed + shifts if batch > 1 else self.placed

    def forward(self, placed, colors, faces, adjacent, implementation=None, samples=1):
        clip = clip_coordinates(placed, self.matrix, self.size)
        return draw(clip, colors, faces, self.size, samples, implementation, adjacent, cull=True)[0]

    def programs(self, implementation=None, samples=1):
        """Forward, and forward with gradients to vertices and colours, with the seconds to compile each."""

        def forward(placed, colors, faces, adjacent):
            return self.forward(placed, colors, faces, adjacent, implementation, samples)

        def both(placed, colors, faces, adjacent, gradient):
            image, back = jax.vjp(lambda p, c: forward(p, c, faces, adjacent), placed, colors)
            return image, back(gradient)

        programs = (forward, both)
        if self.batch > 1:
            programs = (
                jax.vmap(forward, (0, None, None, None)),
                jax.vmap(both, (0, None, None, None, None)),
            )
        mesh = (self.many, self.colors, self.faces, self.adjacent)
        mesh = tuple(jnp.asarray(part) for part in mesh)
        return compiled(programs[0], *mesh), compiled(programs[1], *mesh, jnp.asarray(self.gradient))


def run(smoke: bool = False) -> dict:
    """Milliseconds a picture by configuration, `ratios` to peers and to our own reference in the same rounds,
    how times scale, and the memory of a large batch.
    """
    repeats = 3 if smoke else 25
    scenes = meshes()
    results: dict = {"meshes": {name: len(scene.model.faces) for name, scene in scenes.items()}, "times": {}}
    ratios: dict[str, float] = {}
    sides = (64,) if smoke else (224, 512)
    for side in sides:
        times, ratio_of = beside_peers(Head(scenes["22k"], (side, side)), repeats)
        results["times"][f"22k {side} batch 1"] = times
        ratios |= {f"{name} {side}": value for name, value in ratio_of.items()}
    if not smoke:
        results["times"]["13k 224 batch 1"] = beside_peers(Head(scenes["13k"], (224, 224)), repeats)[0]
    batches, batch_ratios = batched(scenes["22k"], sides[0], (2,) if smoke else (8, 32), 3 if smoke else 20)
    results["times"] |= batches
    results["reference"] = reference(Head(scenes["22k"], (sides[0],) * 2), 2 if smoke else 10)
    if jax.default_backend() != "cpu":
        results["beside_reference"] = beside_reference(
            scenes["22k"], sides, (1,) if smoke else (1, 8, 32), repeats
        )
    if not smoke:
        results["scaling"] = scaling(repeats)
        results["peak_memory_mib_512_batch_32"] = in_process("memory")
    return results | {"ratios": ratios | batch_ratios}


def meshes() -> dict[str, Scene]:
    """The heads to draw: about 22 thousand triangles (ICT-FaceKit's, or the open model's outside where its
    files are not there), and the skin of the open model's face.
    """
    front, _, third = head_scenes()
    part = outer(front.model)
    return {"22k": third, "13k": front._replace(model=crop(part, skin_of(part)))}


def skin_of(model) -> np.ndarray:
    """Which vertices are skin or lips, without neck, ears and scalp."""
    part = {name: np.asarray(model.regions[name]) > 0.5 for name in ("skin", "lips", "neck", "ears", "scalp")}
    return (part["skin"] | part["lips"]) & ~(part["neck"] | part["ears"] | part["scalp"])


def beside_peers(head: Head, repeats: int) -> tuple[dict, dict[str, float]]:
    """Times of ours and of every installed peer, in the same rounds; the pictures are compared first."""
    (forward, forward_s), (both, both_s) = head.programs()
    _, (fine, _) = head.programs(samples=2)
    image = np.asarray(forward())
    functions = {"forward": forward, "forward+backward": both, "2x2 samples forward+backward": fine}
    checked: dict[str, float] = {}
    for name, peer in peers.installed().items():
        other = peer(head.placed, head.colors, head.faces, head.matrix, head.size)
        difference = float(np.abs(np.asarray(other.forward()) - image).mean())
        if difference > 0.02:
            raise RuntimeError(f"{name} draws another picture: {difference:.3f} mean difference")
        checked[name] = round(difference, 5)
        functions[f"{name} forward"] = other.forward
        functions[f"{name} forward+backward"] = lambda other=other: other.forward_backward(head.gradient)
    functions |= soft(head)
    times = rounds(functions, repeats)
    ratios = {
        f"{name} {part}": ratio(times[f"{name} {part}"], times[part])
        for name in checked
        for part in ("forward", "forward+backward")
    }
    ratios["hard / soft K=8"] = ratio(times["forward+backward"], times["soft K=8 forward+backward"])
    found = {name: summary(values) for name, values in times.items()}
    found["compile_s"] = {"forward": round(forward_s, 2), "forward+backward": round(both_s, 2)}
    found["mean_difference_of_pictures"] = checked
    return found, ratios


def soft(head: Head):
    """Our soft rasterizer with eight fragments a pixel, sharp enough not to swell the silhouette."""
    sigma, gamma = 0.0127, 1e-4  # pixels squared: 1/200 of a triangle at 22k and 224 pixels; depth

    def both(placed, colors, faces):
        def image(placed, colors):
            clip = clip_coordinates(placed, head.matrix, head.size)
            return soft_render(clip, faces, colors, head.size, jnp.zeros(3), sigma, gamma, cull=True)

        drawn, back = jax.vjp(image, placed, colors)
        return back(jax.tree.map(jnp.ones_like, drawn))

    mesh = tuple(jnp.asarray(part) for part in (head.placed, head.colors, head.faces))
    return {"soft K=8 forward+backward": compiled(both, *mesh)[0]}


def batched(scene: Scene, side: int, sizes: tuple[int, ...], repeats: int) -> tuple[dict, dict[str, float]]:
    """Milliseconds a picture for batches, and how much better than one at a time."""
    heads = {batch: Head(scene, (side, side), batch) for batch in (1, *sizes)}
    functions = {}
    for batch, head in heads.items():
        (forward, _), (both, _) = head.programs()
        functions |= {f"forward {batch}": forward, f"forward+backward {batch}": both}
    times = rounds(functions, repeats)
    found, ratios = {}, {}
    for batch in sizes:
        found[f"22k {side} batch {batch}"] = {
            part: summary(times[f"{part} {batch}"], batch) for part in ("forward", "forward+backward")
        }
        one, many = times["forward+backward 1"], times[f"forward+backward {batch}"]
        ratios[f"batch 1 / batch {batch} forward+backward {side}"] = round(batch / ratio(many, one), 3)
    return found, ratios


def reference(head: Head, repeats: int) -> dict:
    """Plain JAX on the same head; the pictures are compared first."""
    (forward, forward_s), (both, both_s) = head.programs("reference")
    hard, _ = compiled(
        lambda placed, faces: (
            rasterize(
                clip_coordinates(placed, head.matrix, head.size),
                faces,
                head.size,
                implementation="reference",
                cull=True,
            ).face_index
        ),
        jnp.asarray(head.placed),
        jnp.asarray(head.faces),
    )
    (best, _), _ = head.programs()
    difference = float(jnp.abs(forward() - best()).max())
    if difference > 1e-2:
        raise RuntimeError(f"the implementations draw different pictures: {difference:.4f} at most")
    times = rounds({"visible faces": hard, "forward": forward, "forward+backward": both}, repeats)
    return {name: summary(values) for name, values in times.items()} | {
        "compile_s": {"forward": round(forward_s, 2), "forward+backward": round(both_s, 2)}
    }


def beside_reference(scene: Scene, sides: tuple[int, ...], batches: tuple[int, ...], repeats: int) -> dict:
    """Milliseconds a picture of the native kernels and of plain JAX, whole batches in one program: for
    devices that have few peers.
    """
    found = {}
    for side in sides:
        for batch in batches:
            head = Head(scene, (side, side), batch)
            functions = {}
            for name in ("native", "reference"):
                if name in available("draw"):
                    (forward, _), (both, _) = head.programs(name)
                    functions |= {f"{name} forward": forward, f"{name} forward+backward": both}
            times = rounds(functions, repeats)
            found[f"22k {side} batch {batch}"] = {
                name: summary(values, batch) for name, values in times.items()
            }
    return found


def scaling(repeats: int) -> dict:
    """Median milliseconds, forward with gradients, by triangles at 224 pixels, by side at 22k, by threads."""

    def time_of(triangles: int, side: int) -> float:
        case = ball_case(triangles, (side, side))
        colors = jnp.ones((len(case.vertices_clip), 3))
        adjacent = neighbors(case.faces)

        def both(vertices, colors):
            image, back = jax.vjp(
                lambda v, c: draw(v, c, case.faces, case.size, adjacent=adjacent)[0], vertices, colors
            )
            return back(image)

        program, _ = compiled(both, jnp.asarray(case.vertices_clip), colors)
        return summary(rounds({"": program}, repeats)[""])["median_ms"]

    cores = os.cpu_count() or 1
    return {
        "triangles": {count: time_of(count, 224) for count in SCALING_TRIANGLES},
        "side": {side: time_of(22_000, side) for side in SCALING_PIXELS},
        "threads": {
            count: in_process("threads", count)
            for count in sorted({1, cores})
            if jax.default_backend() == "cpu"
        },
    }


def in_process(what: str, *arguments) -> float | None:
    """Runs one of ALONE in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.render", what, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _memory() -> float:
    """MiB at the peak of 32 pictures of 512 x 512, forward and back: of the whole process, on a GPU of the
    memory that JAX holds there.
    """
    _, (both, _) = Head(meshes()["22k"], (512, 512), 32).programs()
    jax.block_until_ready(both())
    if jax.default_backend() != "cpu":
        return round(jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20)
    return round(peak_mib())


def _threads(count: str) -> float:
    """Milliseconds, forward with gradients, on so many cores; XLA makes its threads when it is first used."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(count)])
    _, (both, _) = Head(meshes()["22k"], (224, 224)).programs()
    return summary(rounds({"": both}, 20)[""])["median_ms"]


ALONE = {"memory": _memory, "threads": _threads}

if __name__ == "__main__":
    print(json.dumps(ALONE[sys.argv[1]](*sys.argv[2:])))
