"""Camera, normals, light, and the renderer that joins them."""

from facefit.render.camera import clip_coordinates, directions_to_camera, intrinsics, project, to_camera
from facefit.render.lighting import irradiance, project_radiance, sh_basis, shade
from facefit.render.mesh import face_normals, normalize, vertex_normals
from facefit.render.renderer import Rendering, render, render_face

__all__ = [
    "Rendering",
    "clip_coordinates",
    "directions_to_camera",
    "face_normals",
    "intrinsics",
    "irradiance",
    "normalize",
    "project",
    "project_radiance",
    "render",
    "render_face",
    "sh_basis",
    "shade",
    "to_camera",
    "vertex_normals",
]
