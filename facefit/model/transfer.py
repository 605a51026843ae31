"""From one 3D morphable model to another of any topology: dense landmarks, regions and the albedo prior."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from facefit.model.npz import REGIONS, as_jax
from facefit.model.proximity import Closest, closest_points
from facefit.model.records import FaceModel, SurfacePoints
from facefit.model.registration import similarity, smooth_fit, thin_plate, vertex_normals

PARTS = ("eyes", "inner", "ears")  # matched among themselves: an eyeball takes its colour from an eyeball


def positions(model: FaceModel, points: SurfacePoints) -> np.ndarray:
    """Surface points of the mean face, (L, 3), mm."""
    corners = np.asarray(model.mean)[np.asarray(model.faces)[np.asarray(points.face)]]
    return np.einsum("lk,lkc->lc", np.asarray(points.barycentric), corners)


def warp_onto(source: FaceModel, target: FaceModel) -> np.ndarray:
    """Vertices of `source`'s mean face laid over `target`'s mean face, (V_source, 3), millimetres.

    A similarity and a thin-plate warp driven by the 68 landmarks and the ears' ends, then a smooth fit of the
    outer skin to the closest compatible surface. Correspondence is semantic at the landmarks and geometric in
    between.
    """
    from_points, to_points = positions(source, source.landmarks68), positions(target, target.landmarks68)
    align = similarity(from_points, to_points)
    vertices = align(np.asarray(source.mean, np.float64))
    if (ears := ear_points(source)) is not None and (other_ears := ear_points(target)) is not None:
        from_points, to_points = np.concatenate([from_points, ears]), np.concatenate([to_points, other_ears])
    vertices = thin_plate(align(from_points), to_points, vertices, smoothing=2.0)
    outer = _outer_faces(source)
    used, faces = np.unique(outer, return_inverse=True)
    faces = faces.reshape(-1, 3)
    moved = smooth_fit(vertices[used], faces, np.asarray(target.mean), _outer_faces(target))
    vertices[used] = moved
    return vertices


def ear_points(model: FaceModel) -> np.ndarray | None:
    """Middle, top, bottom, rear and outermost point of both ears, (10, 3) mm; None without ears."""
    mean, ears = np.asarray(model.mean, np.float64), np.asarray(model.regions["ears"]) > 0.5
    points = []
    for side in (-1, 1):
        ear = mean[ears & (mean[:, 0] * side > 0)]
        if not len(ear):
            return None
        ends = ear[[ear[:, 1].argmax(), ear[:, 1].argmin(), ear[:, 2].argmin(), (side * ear[:, 0]).argmax()]]
        points += [(ear.max(axis=0) + ear.min(axis=0)) / 2, *ends]
    return np.array(points)


def _part(model: FaceModel, name: str) -> np.ndarray:
    return np.asarray(model.regions[name])[np.asarray(model.faces)].min(axis=1) > 0.5


def _outer_faces(model: FaceModel) -> np.ndarray:
    return np.asarray(model.faces)[~(_part(model, "eyes") | _part(model, "inner"))]


def vertex_map(source: FaceModel, target: FaceModel, warped: np.ndarray | None = None) -> Closest:
    """The point of `source`'s surface that belongs to every vertex of `target`; indexes `source.faces`.

    Eyes and mouth cavity are matched to the same part; where `source` lacks the part, the triangle is -1.

    Args:
        warped: result of `warp_onto(source, target)`, if at hand.
    """
    warped = warp_onto(source, target) if warped is None else warped
    vertices, faces = np.asarray(target.mean), np.asarray(target.faces)
    normals = vertex_normals(vertices, faces)
    remaining = np.ones(len(vertices), bool)
    result = Closest(
        np.full(len(vertices), -1, np.int32),
        np.zeros((len(vertices), 3)),
        np.full((len(vertices), 3), np.nan),
        np.full(len(vertices), np.inf),
    )
    parts = {name: _part(source, name) for name in PARTS}
    outer = ~np.logical_or.reduce(list(parts.values()))
    for name, chosen in [*parts.items(), ("", outer)]:
        mine = remaining & (np.asarray(target.regions[name]) > 0.5) if name else remaining.copy()
        remaining &= ~mine
        ids, candidates = np.flatnonzero(mine), np.flatnonzero(chosen)
        if not len(ids) or not len(candidates):
            continue
        source_faces = np.asarray(source.faces)[candidates]
        found = closest_points(vertices[ids], warped, source_faces, normals[ids], 0.3, 4)
        missing = found.face < 0
        if missing.any():
            plain = closest_points(vertices[ids[missing]], warped, source_faces)
            for field, value in zip(found, plain, strict=True):
                field[missing] = value
        for whole, value in zip(result, found, strict=True):
            whole[ids] = value
        result.face[ids] = candidates[found.face]
    return result


def complete(
    target: FaceModel,
    source: FaceModel,
    fields: Iterable[str] = ("landmarks468", "albedo"),
) -> FaceModel:
    """`target` with some fields taken over from `source`, another model of the human head.

    Args:
        target: the model that lacks something; its `landmarks68` must be right.
        source: a complete model.
        fields: of "landmarks468" (with `landmark_sigma468`), "albedo" (mean and basis), "regions" (those that
            `target` lacks or has all zero).
    """
    fields = set(fields)
    if unknown := fields - {"landmarks468", "albedo", "regions"}:
        raise ValueError(f"fields: cannot transfer {', '.join(sorted(unknown))}")
    warped = warp_onto(source, target)
    changes = {}
    if "landmarks468" in fields:
        points = source.landmarks468
        corners = np.asarray(source.faces)[np.asarray(points.face)]
        weights = np.asarray(points.barycentric)[..., None]
        changes["landmarks468"] = project_points(
            target,
            (warped[corners] * weights).sum(1),
            (vertex_normals(warped, np.asarray(source.faces))[corners] * weights).sum(1),
        )
        changes["landmark_sigma468"] = np.asarray(source.landmark_sigma468)
    if fields & {"albedo", "regions"}:
        match = vertex_map(source, target, warped)
        known = match.face >= 0
        if "teeth" in target.regions and "teeth" not in source.regions:
            known &= np.asarray(target.regions["teeth"]) < 0.5  # or they would take the colour of the gums
        corners = np.asarray(source.faces)[match.face[known]]

        def sample(values):
            return np.einsum(
                "nk,...nkc->...nc", match.barycentric[known], np.asarray(values)[..., corners, :]
            )

        if "albedo" in fields:
            mean = np.array(target.albedo_mean, np.float32)
            basis = np.zeros((len(source.albedo_basis), *mean.shape), np.float32)
            mean[known] = sample(source.albedo_mean)
            basis[:, known] = sample(source.albedo_basis)
            changes |= {"albedo_mean": mean, "albedo_basis": basis}
        if "regions" in fields:
            regions = {name: np.asarray(values) for name, values in target.regions.items()}
            for name in REGIONS:
                if not regions.get(name, np.zeros(1)).any():
                    regions[name] = np.zeros(len(known), np.float32)
                    regions[name][known] = sample(np.asarray(source.regions[name])[:, None])[:, 0]
            changes["regions"] = regions
    return as_jax(target.replace(**changes))


def project_points(model: FaceModel, points: np.ndarray, normals: np.ndarray | None = None) -> SurfacePoints:
    """The closest points of the mean face's outer skin (eyeballs included) to `points` (L, 3), millimetres.

    Args:
        normals: (L, 3); where given, surfaces that look elsewhere are not taken unless there is no other.
    """
    faces = np.asarray(model.faces)
    seen = np.flatnonzero(~_part(model, "inner"))
    found = closest_points(points, np.asarray(model.mean), faces[seen], normals, 0.2, 6)
    if (missing := found.face < 0).any():
        plain = closest_points(points[missing], np.asarray(model.mean), faces[seen])
        for field, value in zip(found, plain, strict=True):
            field[missing] = value
    return SurfacePoints(seen[found.face].astype(np.int32), found.barycentric.astype(np.float32))
