"""Synthetic photographs of faces of a model, drawn by our renderer, with everything about them known."""

from facefit.synthesis.grading import Grade, random_grade
from facefit.synthesis.rendering import Head, prepare_head
from facefit.synthesis.sample import SyntheticPhoto, Truth, random_photo

__all__ = ["Grade", "Head", "SyntheticPhoto", "Truth", "prepare_head", "random_grade", "random_photo"]
