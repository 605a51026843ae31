"""Photographs: reading, finding the face, its landmarks, crops and skin colour."""

from facefit.photo.cropping import crop
from facefit.photo.photograph import read_photograph
from facefit.photo.read import read_pixels
from facefit.photo.records import FaceFound, Photograph

__all__ = ["FaceFound", "Photograph", "crop", "read_photograph", "read_pixels"]
