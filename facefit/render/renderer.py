"""From vertices and colours to a picture: the kernels joined to the camera and the light."""

from __future__ import annotations

from facefit_kernels import Fragments, draw, rasterize
from flax import struct
from jaxtyping import Array, Float, Int

from facefit.model import FaceModel, Parameters, albedo, vertices
from facefit.render.camera import clip_coordinates, directions_to_camera, to_camera
from facefit.render.lighting import shade
from facefit.render.mesh import vertex_normals


@struct.dataclass
class Rendering:
    """A picture of a mesh: linear colours (H, W, C), coverage in [0, 1] (H, W), and its fragments."""

    image: Float[Array, "H W C"]
    coverage: Float[Array, "H W"]
    fragments: Fragments


def render(
    vertices_camera: Float[Array, "V 3"],
    colors: Float[Array, "V C"],
    faces: Int[Array, "F 3"],
    matrix: Float[Array, "3 3"],
    size: tuple[int, int],
    implementation: str | None = None,
    samples: int = 1,
    adjacent: Int[Array, "F 3"] | None = None,
) -> Rendering:
    """Draws a coloured mesh on a black background, antialiased, differentiable in everything but `faces`.

    Args:
        vertices_camera: OpenCV camera frame, millimetres.
        colors: any number of values a vertex (linear RGB, normals, ...).
        matrix: pinhole matrix of the picture.
        size: (H, W), static.
        implementation: of the kernels; None chooses.
        samples: along each axis for one pixel, static; see `facefit_kernels.draw`. The fragments are those of
            the pixels' centres.
        adjacent: `facefit_kernels.neighbors(faces)`; worth giving where `faces` is traced.
    """
    clip = clip_coordinates(vertices_camera, matrix, size)
    image, coverage = draw(clip, colors, faces, size, samples, implementation, adjacent)
    # Few want the fragments: inside `jit` they cost nothing then.
    fragments = rasterize(clip, faces, size, implementation=implementation)
    return Rendering(image=image, coverage=coverage, fragments=fragments)


def render_face(
    model: FaceModel,
    parameters: Parameters,
    matrix: Float[Array, "3 3"],
    size: tuple[int, int],
    implementation: str | None = None,
    samples: int = 1,
    adjacent: Int[Array, "F 3"] | None = None,
) -> Rendering:
    """Draws one view of a subject: `parameters.views` without its leading axis (see `jax.vmap`).

    Args:
        matrix: pinhole matrix of the picture to be drawn; `log_focal` is not read, so a crop can be drawn.
        size: (H, W), static.
        implementation, samples, adjacent: as in `render`.
    """
    view = parameters.views
    points = vertices(model, parameters.identity, view.expression)
    normals = directions_to_camera(vertex_normals(points, model.faces), view.rotation)
    colors = shade(albedo(model, parameters.albedo), normals, view.lighting)
    placed = to_camera(points, view.rotation, view.translation)
    return render(placed, colors, model.faces, matrix, size, implementation, samples, adjacent)
