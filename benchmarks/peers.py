"""Other differentiable renderers, where they are installed: each draws the same mesh and goes back."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np


class Deodr:
    """DEODR (de La Gorce et al. 2008): C++ on one core, edge overdraw, faces seen from behind
    left out; gradients to vertices and colours.
    """

    package = "deodr"

    def __init__(self, vertices_camera, colors, faces, matrix, size):
        from deodr import differentiable_renderer
        from deodr.triangulated_mesh import ColoredTriMesh

        height, width = size
        colors = np.asarray(colors, np.float64)
        mesh = ColoredTriMesh(
            np.asarray(faces, np.int64), np.asarray(vertices_camera, np.float64), clockwise=False, nb_colors=3
        )
        mesh.set_vertices_colors(colors)
        self.scene = differentiable_renderer.Scene3D(sigma=1, integer_pixel_centers=False)
        self.scene.set_mesh(mesh)
        self.scene.set_light(None, 1.0)
        self.scene.set_background_color(np.zeros(3))
        self.camera = differentiable_renderer.Camera(
            np.eye(3, 4), np.asarray(matrix, np.float64), height, width
        )

    def forward(self) -> np.ndarray:
        return self.scene.render(self.camera)

    def forward_backward(self, gradient) -> tuple[np.ndarray, np.ndarray]:
        self.scene.render(self.camera)
        self.scene.clear_gradients()
        self.scene.render_backward(np.asarray(gradient, np.float64))
        return self.scene.mesh._vertices_b, self.scene.mesh.vertices_colors_b


class Mitsuba:
    """Mitsuba 3 (Jakob et al. 2022), LLVM variant, `direct_projective`, one emitting mesh, 16 samples a
    pixel.
    """

    package = "mitsuba"

    def __init__(self, vertices_camera, colors, faces, matrix, size):
        import drjit
        import mitsuba

        mitsuba.set_variant("llvm_ad_rgb")
        self.mi, self.dr = mitsuba, drjit
        height, width = size
        mesh = mitsuba.Mesh(
            "head", len(vertices_camera), len(faces), has_vertex_normals=False, has_vertex_texcoords=False,
            props=self._emitter(),
        )  # fmt: skip
        # Its camera looks along z with x to the left.
        positions = np.asarray(vertices_camera, np.float32) * np.float32([-1, -1, 1])
        mesh.add_attribute("vertex_color", 3, np.asarray(colors, np.float32).ravel())
        parameters = mitsuba.traverse(mesh)
        parameters["vertex_positions"] = mitsuba.Float(positions.ravel())
        parameters["faces"] = mitsuba.UInt32(np.asarray(faces, np.uint32).ravel())
        parameters.update()
        focal = float(matrix[0][0])
        self.scene = mitsuba.load_dict(
            {
                "type": "scene",
                "integrator": {"type": "direct_projective", "sppi": 0},
                "mesh": mesh,
                "sensor": {
                    "type": "perspective",
                    "fov": float(np.degrees(2 * np.arctan(0.5 * width / focal))),
                    "fov_axis": "x",
                    "film": {"type": "hdrfilm", "width": width, "height": height, "rfilter": {"type": "box"}},
                    "sampler": {"type": "independent", "sample_count": 16},
                },
            }
        )
        self.parameters = mitsuba.traverse(self.scene)
        self.positions = "mesh.vertex_positions"

    def _emitter(self):
        properties = self.mi.Properties()
        properties["emitter"] = self.mi.load_dict(
            {"type": "area", "radiance": {"type": "mesh_attribute", "name": "vertex_color"}}
        )
        return properties

    def forward(self) -> np.ndarray:
        return np.array(self.mi.render(self.scene, spp=16))[..., :3]

    def forward_backward(self, gradient) -> np.ndarray:
        self.dr.enable_grad(self.parameters[self.positions])
        self.parameters.update()
        image = self.mi.render(self.scene, self.parameters, spp=16)
        self.dr.backward(self.dr.sum(image * self.mi.TensorXf(np.asarray(gradient, np.float32))))
        return np.array(self.dr.grad(self.parameters[self.positions]))


def installed() -> dict[str, Callable]:
    """The peers whose packages are in this environment, by name."""
    return {
        peer.package: peer for peer in (Deodr, Mitsuba) if importlib.util.find_spec(peer.package) is not None
    }
