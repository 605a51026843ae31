"""Find the faces of a photograph and choose one: BlazeFace proposes, the Face Mesh network confirms.

On the kit's 359 photographs BlazeFace on the whole picture misses none, dlib's HOG detector 37 (profiles,
small faces), so BlazeFace comes first. Where no proposal is confirmed the search widens: zoomed out (a face
that fills the picture), HOG with up-sampling, turned pictures, tiles (small faces in large pictures), and at
last the Face Mesh network on a grid of squares of its own. The search stops at the first stage that confirms
a face.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from facefit.errors import InputError
from facefit.photo import blazeface, cropping, face_mesh
from facefit.photo.face_mesh import Square
from facefit.photo.records import FaceFound

MIN_SCORE = 0.5  # of the Face Mesh network for a proposal of the first stage
MIN_SCORE_LATE = 0.85  # for proposals of the later stages, which are more often wrong
# Median over the points of their scatter between six looks, as a fraction of the face. On 65 difficult true
# faces it is at most 0.0125 (0.027 on a blurred one 48 pixels large, with a logit of 18); on what the network
# takes for a face in pictures without one, 95 % are above 0.034, and those with a logit over 12 above 0.04.
MAX_SCATTER = 0.022
_MAX_SCATTER_SURE, _SURE = 0.032, 12.0
_TRUST_IN_ANGLE = 4.0  # logits by which another angle must be better than the proposal's own
_MAX_PROPOSALS = 18  # confirmed a stage
_LARGE = 2048  # pixels; the longer side of the copy that is searched of a larger photograph
_HOG_SIDE = 1000  # pixels; larger photographs are reduced to this for HOG


def find_faces(pixels: np.ndarray) -> list[FaceFound]:
    """All faces of a photograph, from left to right (by the centre of the box); empty where none is found.

    A large photograph is searched in a reduced copy, and in full only where that shows no face.
    """
    scale = max(pixels.shape[:2]) / _LARGE
    faces = []
    if scale > 1:
        size = tuple(max(1, round(n / scale)) for n in pixels.shape[1::-1])
        reduced = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        faces = [_enlarge(pixels, face, reduced.shape) for face in _search(reduced)]
    return sorted(faces or _search(pixels), key=lambda f: f.box[0] + f.box[2])


def _search(pixels: np.ndarray) -> list[FaceFound]:
    """The faces that the first successful stage confirms."""
    for name, threshold, squares in _stages(pixels):
        faces = _confirm(pixels, squares[:_MAX_PROPOSALS], threshold, name)
        if faces:
            return faces
    return []


def _enlarge(pixels: np.ndarray, face: FaceFound, reduced: tuple[int, ...]) -> FaceFound:
    """A face found in a reduced copy, in the photograph; looked at again there where the copy had fewer
    pixels than the network takes."""
    x, y = pixels.shape[1] / reduced[1], pixels.shape[0] / reduced[0]
    points = (face.landmarks * [x, y, x]).astype(np.float32)
    if face.size >= face_mesh.SIZE:
        return replace(face, landmarks=points, scatter=face.scatter * np.float32(x))
    points, scatter, logit = face_mesh.averaged_landmarks(pixels, points)
    return replace(face, landmarks=points, scatter=scatter, score=face_mesh.probability(logit))


def choose(pixels: np.ndarray, faces: list[FaceFound], choice: str) -> FaceFound:
    """The face named by `choice`: "largest"; "N", the N-th from the left, from 1; or "x,y", the one nearest
    that pixel (first pixel 0,0), looked for there anew where no face found covers it.

    Raises InputError where `choice` is none of these, or there is no such face or pixel.
    """
    choice = str(choice).strip()
    if choice == "largest":
        return max(faces, key=lambda f: (f.size, f.score))
    point = point_of(choice)
    if point is not None:
        height, width = pixels.shape[:2]
        if not (0 < point[0] < width and 0 < point[1] < height):
            raise InputError(
                f"--face {choice}: not in the picture, which has {width} x {height} pixels. "
                'Give a pixel x,y of the face, or "largest".'
            )
        if not any(distance(f, point) == 0 for f in faces):
            faces = faces + faces_near(pixels, point)
        return min(faces, key=lambda f: (distance(f, point), f.size))
    if not choice.isdecimal():
        raise InputError(
            f'--face {choice}: say "largest", a number N (the N-th face from the left) or a pixel x,y.'
        )
    if not 1 <= int(choice) <= len(faces):
        found = "one face was" if len(faces) == 1 else f"{len(faces)} faces were"
        raise InputError(f'--face {choice}: {found} found. Give a number up to {len(faces)}, or "largest".')
    return faces[int(choice) - 1]


def point_of(choice: str) -> np.ndarray | None:
    """The pixel that "x,y" names, first pixel's centre at (.5, .5); None where `choice` is something else."""
    try:
        numbers = [float(n) for n in choice.split(",")]
    except ValueError:
        return None
    return np.array(numbers) + 0.5 if len(numbers) == 2 and all(map(math.isfinite, numbers)) else None


def faces_near(pixels: np.ndarray, point: np.ndarray) -> list[FaceFound]:
    """Faces that cover a point (photo pixels), looked for in squares of growing size around it."""
    for side in np.geomspace(min(64, *pixels.shape[:2]), 2 * max(pixels.shape[:2]), 7):
        found = blazeface.detect(pixels, [cropping.square_to_photo(point, side, blazeface.SIZE)])
        faces = _confirm(pixels, [_square_of_detection(d) for d in found], MIN_SCORE, "BlazeFace")
        faces = [f for f in faces if distance(f, point) == 0]
        if faces:
            return faces
    return []


def refine(pixels: np.ndarray, squares: list[Square], most: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Face Mesh points and scores (logits) of the given squares, each looked at again around the points found
    until the square stays where it is (by 4 degrees and 4 % of its side), at least twice and at most `most`
    times.
    """
    for step in range(most):
        points, scores = face_mesh.landmarks(pixels, squares)
        found = [face_mesh.square_of(p) for p in points]
        moved = [
            abs(math.remainder(f.angle - s.angle, math.tau)) / math.radians(4)
            + math.dist(f.center, s.center) / (0.04 * f.side)
            for f, s in zip(found, squares, strict=True)
        ]
        squares = found
        if step >= 1 and max(moved) < 1:
            break
    return points, scores


def _stages(pixels: np.ndarray) -> Iterator[tuple[str, float, list[Square]]]:
    """What proposed, the score a proposal needs, and the proposals, one stage after the other."""

    def blaze(squares: list[np.ndarray]) -> list[Square]:
        return [_square_of_detection(d) for d in blazeface.detect(pixels, squares)]

    yield "BlazeFace", MIN_SCORE, blaze([blazeface.whole(pixels)])
    yield "BlazeFace", MIN_SCORE_LATE, blaze([blazeface.whole(pixels, zoom=1.7)])
    yield "HOG", MIN_SCORE_LATE, _hog(pixels)
    turned = [
        blazeface.whole(pixels, angle=math.radians(a), zoom=1.2) for a in (90, -90, 180, 45, -45, 135, -135)
    ]
    yield "BlazeFace, turned", MIN_SCORE_LATE, blaze(turned)
    for count in (2, 4):
        yield "BlazeFace, tiles", MIN_SCORE_LATE, blaze(_tiles(pixels, count))
    yield "Face Mesh", MIN_SCORE_LATE, _grid(pixels)


def _square_of_detection(found: blazeface.Detection) -> Square:
    return Square(
        (float(found.center[0]), float(found.center[1])), found.size * face_mesh.MARGIN, found.angle
    )


def _confirm(pixels: np.ndarray, squares: list[Square], threshold: float, name: str) -> list[FaceFound]:
    """The proposals that the Face Mesh network takes for faces, each face once."""
    if not squares:
        return []
    points, scores = refine(pixels, _upright(pixels, squares))
    faces: list[FaceFound] = []
    for p, logit in zip(points, scores, strict=True):
        if face_mesh.probability(logit) < threshold or not _plausible(p, pixels.shape):
            continue
        p, scatter, logit = face_mesh.averaged_landmarks(pixels, p)
        face = FaceFound(p, scatter, face_mesh.probability(logit), name)
        steady = np.median(scatter) <= (_MAX_SCATTER_SURE if logit > _SURE else MAX_SCATTER) * face.size
        if steady and face.score >= threshold and not any(_same(face, f) for f in faces):
            faces.append(face)
    return faces


def _upright(pixels: np.ndarray, squares: list[Square]) -> list[Square]:
    """The squares turned by a quarter, a half or three quarters where the network is much surer of that: a
    proposal's own angle is wrong for faces that hang upside down, and the points of such a look are nonsense
    with a good score.
    """
    turns = np.radians([0.0, 90.0, 180.0, 270.0])
    tried = [replace(square, angle=square.angle + float(turn)) for square in squares for turn in turns]
    logits = face_mesh.landmarks(pixels, tried)[1].reshape(-1, len(turns))
    logits[:, 0] += _TRUST_IN_ANGLE
    return [tried[len(turns) * i + int(turn)] for i, turn in enumerate(logits.argmax(1))]


def _plausible(points: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Not collapsed, and its middle inside the picture."""
    low, high = points[:, :2].min(0), points[:, :2].max(0)
    middle = (low + high) / 2
    return bool((high - low).min() > 8 and (middle >= 0).all() and (middle <= shape[1::-1]).all())


def _same(a: FaceFound, b: FaceFound) -> bool:
    """Whether two boxes share most of the smaller one."""
    inner = np.minimum(a.box[2:], b.box[2:]) - np.maximum(a.box[:2], b.box[:2])
    if inner.min() <= 0:
        return False
    areas = [(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]) for f in (a, b)]
    return inner.prod() > 0.5 * min(areas)


def distance(face: FaceFound, point: np.ndarray) -> float:
    """From a point to a face's box, pixels; 0 inside."""
    low, high = np.array(face.box[:2]), np.array(face.box[2:])
    return float(np.linalg.norm(np.maximum(np.maximum(low - point, point - high), 0)))


@functools.cache
def _hog_detector():
    import dlib  # here, because importing it takes a moment that most photographs do not need

    return dlib.get_frontal_face_detector()


def _hog(pixels: np.ndarray) -> list[Square]:
    """dlib's frontal detector (Dalal and Triggs 2005; King 2015), at twice the size so that faces of 40
    pixels count.
    """
    try:
        detector = _hog_detector()
    except ImportError:
        return []
    scale = min(2.0, _HOG_SIDE / max(pixels.shape[:2]))
    size = tuple(max(1, round(scale * n)) for n in pixels.shape[1::-1])
    image = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    boxes, _, _ = detector.run(np.ascontiguousarray(image), 0, -0.2)
    squares = []
    for box in boxes:
        center = ((box.left() + box.right() + 1) / 2 / scale, (box.top() + box.bottom() + 1) / 2 / scale)
        squares.append(Square(center, box.width() / scale * 1.6))
    return squares


def _tiles(pixels: np.ndarray, count: int) -> list[np.ndarray]:
    """Matrices of overlapping squares, `count` along the longer side, half a square apart."""
    height, width = pixels.shape[:2]
    side = max(height, width) / count
    columns, rows = (max(1, math.ceil(2 * n / side) - 1) for n in (width, height))
    xs = np.linspace(side / 2, width - side / 2, columns) if columns > 1 else [width / 2]
    ys = np.linspace(side / 2, height - side / 2, rows) if rows > 1 else [height / 2]
    return [cropping.square_to_photo((x, y), side, blazeface.SIZE) for y in ys for x in xs]


def _grid(pixels: np.ndarray) -> list[Square]:
    """Squares for the Face Mesh network without any detector: the best-scored of a coarse grid over position,
    size and turn.
    """
    squares = []
    for count, angles in ((1, (0, 40, -40, 90, -90)), (2, (0, 40, -40)), (3, (0,))):
        for matrix in _tiles(pixels, count):
            center = matrix[:2, :2] @ [blazeface.SIZE / 2, blazeface.SIZE / 2] + matrix[:2, 2]
            side = max(pixels.shape[:2]) / count
            squares += [Square((float(center[0]), float(center[1])), side, math.radians(a)) for a in angles]
    _, scores = face_mesh.landmarks(pixels, squares)
    return [squares[i] for i in np.argsort(-scores, kind="stable")[:6]]
