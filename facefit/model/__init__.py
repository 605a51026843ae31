"""The 3D morphable model: records, forward model, readers of model files, store of installed models."""

from facefit.model.forward import albedo, at_points, crop, surface_points, vertices
from facefit.model.npz import load_model, save_model
from facefit.model.records import (
    FaceModel,
    Parameters,
    SurfacePoints,
    ViewParameters,
    mean_parameters,
)
from facefit.model.store import convert, find_model, list_models, model_info

__all__ = [
    "FaceModel",
    "Parameters",
    "SurfacePoints",
    "ViewParameters",
    "albedo",
    "at_points",
    "convert",
    "crop",
    "find_model",
    "list_models",
    "load_model",
    "mean_parameters",
    "model_info",
    "save_model",
    "surface_points",
    "vertices",
]
