"""Triangles and pixels: the operations of a differentiable rasterizer, installed as `facefit_kernels`."""

from facefit_kernels.antialiasing.op import antialias, neighbors
from facefit_kernels.drawing.op import draw
from facefit_kernels.fragments import Fragments
from facefit_kernels.implementations import available
from facefit_kernels.interpolation.op import interpolate
from facefit_kernels.normals.op import vertex_normals
from facefit_kernels.rasterization.op import rasterize
from facefit_kernels.softening.op import blur_for, soft_blend, soft_render
from facefit_kernels.texturing.op import mip_level, texture, unwrap

__all__ = [
    "Fragments",
    "antialias",
    "available",
    "blur_for",
    "draw",
    "interpolate",
    "mip_level",
    "neighbors",
    "rasterize",
    "soft_blend",
    "soft_render",
    "texture",
    "unwrap",
    "vertex_normals",
]
