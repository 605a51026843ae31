"""The 3D morphable model: records, the forward model, readers of model files, the store of installed models."""

from facefit.model.forward import albedo, at_points, crop, surface_points, vertices
from facefit.model.records import (
    FaceModel,
    Parameters,
    SurfacePoints,
    ViewParameters,
    mean_parameters,
)

__all__ = [
    "FaceModel",
    "Parameters",
    "SurfacePoints",
    "ViewParameters",
    "albedo",
    "at_points",
    "crop",
    "mean_parameters",
    "surface_points",
    "vertices",
]
