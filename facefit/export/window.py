"""What one photograph shows of a posed mesh: which surface points, how well, and their albedo."""

from __future__ import annotations

import cv2
import numpy as np

from facefit.export.overlay import face_vertices
from facefit.export.views import PosedView, draw, from_bytes, head_crop, project
from facefit.model.records import FaceModel

DEPTH_SIZE = 640  # side of the window in which visibility is decided, pixels
DEPTH_SLACK = 2.0  # mm behind the visible surface at which a point still counts as visible
BORDER = 0.03  # of the window: within this distance of an occluding edge the photograph fades out
DARK = 0.2  # of the mean light: darker light is not divided out further, it would only raise noise
LID = 4.0  # pixels of the window: the same next to the lids


class Window:
    """One photograph around the head, with what is needed to tell which surface points it shows."""

    def __init__(self, model: FaceModel, view: PosedView) -> None:
        crop = head_crop(view, face_vertices(model), DEPTH_SIZE, margin=0.3)
        faces = np.asarray(model.faces)
        self.lighting = np.asarray(view.lighting, np.float32)
        self.matrix = crop.matrix() @ np.asarray(view.matrix, np.float32)
        surface = draw(view.vertices, faces, self.matrix, (DEPTH_SIZE, DEPTH_SIZE))
        depth = surface.interpolate(np.asarray(view.vertices, np.float32)[:, 2:], faces)[..., 0]
        self.depth = np.where(surface.face >= 0, depth, np.float32(1e6))
        around = np.ones((3, 3), np.uint8)
        steps = cv2.dilate(self.depth, around) - cv2.erode(self.depth, around)
        # A window pixel is 0.5 mm wide; a smooth surface seen at 80 degrees changes by 6 mm over 3 x 3.
        edge = (steps > 10.0).astype(np.uint8)
        distance = cv2.distanceTransform(1 - edge, cv2.DIST_L2, 3) / (BORDER * DEPTH_SIZE)
        # Eyeballs lie only a millimetre behind the lids, and the opening is small: an edge of their own, a
        # narrow one.
        eyes = (surface.interpolate(np.asarray(model.regions["eyes"])[:, None], faces)[..., 0] > 0.5).astype(
            np.uint8
        )
        self.eyes = eyes
        rim = cv2.dilate(eyes, around) - cv2.erode(eyes, around)
        distance = np.minimum(distance, cv2.distanceTransform(1 - rim, cv2.DIST_L2, 3) / LID)
        self.calm = np.clip(distance - 0.1, 0, 1).astype(np.float32)
        # Twice the window's resolution keeps pores; more than the photograph has is not made up by `cut`.
        fine = crop._replace(size=int(np.clip(crop.side, DEPTH_SIZE, 2 * DEPTH_SIZE)))
        self.zoom = fine.size / DEPTH_SIZE
        self.pixels = from_bytes(fine.cut(view.pixels))
        inside = crop.cut(np.ones(view.pixels.shape[:2], np.float32))
        corners = crop.corner + (np.indices((DEPTH_SIZE, DEPTH_SIZE))[::-1].T + 0.5) * crop.side / DEPTH_SIZE
        height, width = view.pixels.shape[:2]
        valid = ((corners > 1) & (corners < [width - 1, height - 1])).all(-1).transpose(1, 0)
        self.calm *= valid * inside
        self.calm[[0, 1, -2, -1]] = self.calm[:, [0, 1, -2, -1]] = 0  # and nothing beyond the window

    def sample(
        self, points: np.ndarray, normals: np.ndarray, light: np.ndarray, eyes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Albedo (N, 3) and weight (N,) of surface points (N, 3), normals and light, camera frame.

        `eyes` (N,) says which points lie on an eyeball: the lids are nearer to them than the depth test
        resolves.
        """
        lengths = np.einsum("nc,nc->n", normals, normals) * np.einsum("nc,nc->n", points, points)
        facing = -np.einsum("nc,nc->n", normals, points) / np.sqrt(np.maximum(lengths, 1e-9))
        where = project(points, self.matrix).astype(np.float32)
        front = self._read(self.depth, where, cv2.INTER_NEAREST)
        slope = np.sqrt(np.maximum(1 - facing**2, 0)) / np.maximum(facing, 0.1)
        visible = points[:, 2] < front + DEPTH_SLACK + 0.5 * slope
        weight = np.clip((facing - 0.15) / 0.6, 0, 1) ** 2 * visible
        weight = weight * self._read(self.calm, where, cv2.INTER_LINEAR)
        weight = np.where(eyes & (self._read(self.eyes, where, cv2.INTER_NEAREST) == 0), 0, weight)
        color = self._read(self.pixels, where * np.float32(self.zoom), cv2.INTER_LINEAR)
        floor = DARK * np.maximum(light.mean(axis=0), 1e-3)
        color = np.clip(color / np.maximum(light, floor.astype(np.float32)), 0.0, 1.0)
        weight = weight * np.clip(np.minimum.reduce(list((light / floor).T)) - 0.5, 0.05, 1)
        return color.astype(np.float32), weight.astype(np.float32)

    def _read(self, picture: np.ndarray, where: np.ndarray, how: int) -> np.ndarray:
        # OpenCV's remap takes at most 32767 rows, and has the first pixel's centre at zero.
        width = 16384
        padded = np.zeros((-(-len(where) // width) * width, 2), np.float32)
        padded[: len(where)] = np.clip(where, -1e4, 1e4) - 0.5
        grid = padded.reshape(-1, width, 2)
        border = cv2.BORDER_REPLICATE
        values = cv2.remap(picture, grid[..., 0], grid[..., 1], how, borderMode=border)
        return values.reshape(len(padded), *picture.shape[2:])[: len(where)]
