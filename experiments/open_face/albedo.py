"""The albedo prior of the open face model: tones from an optical model of skin, regions, smooth variation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import eigsh

from .regions import distance_to_line, smooth_step

# Wavelengths (nm); molar extinction of oxy- and deoxyhaemoglobin (1/cm per mol/l, Prahl's compilation);
# daylight D65.
WAVELENGTHS = np.arange(400.0, 701.0, 20.0)
OXY = np.array(
    [266232, 480360, 102580, 44480, 26629, 20932, 24202, 53236, 32613, 50104, 3200, 942, 442, 320, 278, 290.0]
)
DEOXY = np.array(
    [
        223296,
        407560,
        413280,
        23388,
        14550,
        20862,
        31589,
        46592,
        53788,
        37010,
        14677,
        6509,
        4345,
        3227,
        2407,
        1794.0,
    ]
)
D65 = np.array(
    [82.8, 93.4, 104.9, 117.8, 115.9, 109.4, 104.8, 104.4, 100.0, 95.8, 90.0, 87.7, 83.7, 80.2, 78.3, 71.6]
)
XYZ_TO_LINEAR = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
# Median volume fraction in the epidermis and spread of its logarithm over the world.
MELANOSOMES = (0.055, 0.85)
BLOOD = (0.022, 0.45)  # median volume fraction in the dermis and spread of its logarithm
EPIDERMIS_CM, OXYGENATION = 0.006, 0.75
HARMONICS, CHROMA_HARMONICS = 24, 8


def skin_color(melanosomes: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """Linear sRGB of skin under daylight: an absorbing epidermis over a scattering, blood-filled dermis.

    Absorption and scattering coefficients after Jacques (1998, "Skin optics summary"); the two-layer form is
    that of
    Claridge et al. (2003). Colour matching functions by Wyman et al. (2013).

    Args:
        melanosomes: volume fraction in the epidermis, 0.01 (very light) .. 0.45 (very dark), (N,).
        blood: volume fraction in the dermis, 0.01 .. 0.1, (N,).

    Returns:
        (N, 3), in [0, 1].
    """
    w = WAVELENGTHS
    baseline = 0.244 + 85.3 * np.exp(-(w - 154.0) / 66.2)
    melanin = 6.6e11 * w**-3.33
    grams, molar = 150.0, 64500.0
    haemoglobin = 2.303 * grams / molar * (OXYGENATION * OXY + (1 - OXYGENATION) * DEOXY)
    epidermis = melanosomes[:, None] * melanin + (1 - melanosomes[:, None]) * baseline
    dermis = blood[:, None] * haemoglobin + (1 - blood[:, None]) * baseline
    scattering = 2e5 * w**-1.5 + 2e12 * w**-4
    # Kubelka-Munk reflectance of a thick layer; K = 2 mu_a, S = 3/4 mu_s'.
    ratio = 2.0 * dermis / (0.75 * scattering)
    deep = 1.0 + ratio - np.sqrt(ratio**2 + 2.0 * ratio)
    through = np.exp(-2.0 * EPIDERMIS_CM * 1.6 * epidermis)  # twice through, obliquely on average
    reflectance = 0.02 + 0.96 * through * deep

    def lobe(peak: float, left: float, right: float) -> np.ndarray:
        return np.exp(-0.5 * ((w - peak) * np.where(w < peak, left, right)) ** 2)

    matching = np.stack(
        [
            0.362 * lobe(442.0, 0.0624, 0.0374)
            + 1.056 * lobe(599.8, 0.0264, 0.0323)
            - 0.065 * lobe(501.1, 0.0490, 0.0382),
            0.821 * lobe(568.8, 0.0213, 0.0247) + 0.286 * lobe(530.9, 0.0613, 0.0322),
            1.217 * lobe(437.0, 0.0845, 0.0278) + 0.681 * lobe(459.0, 0.0385, 0.0725),
        ]
    )
    weights = matching * D65
    white = XYZ_TO_LINEAR @ weights.sum(1) / weights[1].sum()
    return np.clip((reflectance @ weights.T / weights[1].sum()) @ XYZ_TO_LINEAR.T / white, 0.0, 1.0)


def skin_plane(seed: int = 0, number: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Mean skin colour (3,) and two components (2, 3), one standard deviation each: more light, more
    blood."""
    rng = np.random.default_rng(seed)
    melanosomes = np.clip(MELANOSOMES[0] * np.exp(MELANOSOMES[1] * rng.standard_normal(number)), 0.01, 0.4)
    blood = np.clip(BLOOD[0] * np.exp(BLOOD[1] * rng.standard_normal(number)), 0.01, 0.12)
    colors = skin_color(melanosomes, blood)
    mean = colors.mean(0)
    _, s, vt = np.linalg.svd(colors - mean, full_matrices=False)
    axes = vt[:2] * (s[:2, None] / np.sqrt(number))
    axes[0] *= np.sign(axes[0].sum())
    axes[1] *= np.sign(axes[1, 0] - axes[1, 1])
    # The true distribution is skewed; this spread per channel keeps the darkest tones brown and above zero
    # at -2 sd.
    axes[0] = mean * np.clip(axes[0] / mean, 0.385, 0.41)
    return mean, axes


def manifold_harmonics(
    vertices: np.ndarray, faces: np.ndarray, allowed: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Smoothest functions on the part of the mesh where `allowed` (V,) bool: cotangent Laplacian
    eigenvectors.

    Returns:
        (number, V), unit variance over the area, zero outside; and their eigenvalues (1/mm^2), the constant
        left out.
    """
    inside = faces[allowed[faces].all(1)]
    used = np.unique(inside)
    local = np.searchsorted(used, inside)
    v = vertices[used]
    rows, columns, values = [], [], []
    area = np.zeros(len(used))
    for i in range(3):
        a, b, c = local[:, i], local[:, (i + 1) % 3], local[:, (i + 2) % 3]
        e1, e2 = v[a] - v[c], v[b] - v[c]
        double = np.maximum(np.linalg.norm(np.cross(e1, e2), axis=1), 1e-9)
        cot = np.clip(0.5 * (e1 * e2).sum(1) / double, 0.0, 5.0)
        rows += [a, b]
        columns += [b, a]
        values += [cot, cot]
        np.add.at(area, a, double / 6.0)
    weight = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(len(used),) * 2
    )
    laplacian = sparse.diags(np.asarray(weight.sum(1)).ravel()) - weight
    start = np.random.default_rng(0).standard_normal(len(used))
    eigenvalues, vectors = eigsh(laplacian, k=number + 1, M=sparse.diags(area), sigma=-1e-6, v0=start)
    order = np.argsort(eigenvalues)[1:]
    functions = np.zeros((number, len(vertices)))
    for k, o in enumerate(order):
        f = vectors[:, o] * np.sqrt(area.sum())
        functions[k, used] = f * np.sign(f[np.argmax(np.abs(f))])
    return functions, eigenvalues[order]


@dataclass(frozen=True)
class AlbedoPrior:
    """Linear RGB: mean (V, 3), basis (A, V, 3) of one standard deviation each, and the names of the
    components."""

    mean: np.ndarray
    basis: np.ndarray
    names: tuple[str, ...]


def build_albedo(
    vertices: np.ndarray,
    reference: np.ndarray,
    faces: np.ndarray,
    regions: dict[str, np.ndarray],
    iris: np.ndarray,
) -> AlbedoPrior:
    """Assemble the prior.

    Args:
        vertices: mean head, (V, 3). reference: the head the regions were drawn on, (V, 3).
        iris: angle of every eyeball vertex from the gaze axis, radians (anything elsewhere), (V,).
    """
    skin_mean, axes = skin_plane()
    r = {k: v[:, None] for k, v in regions.items()}
    x, y, z = np.abs(reference[:, 0]), reference[:, 1], reference[:, 2]
    outer = 1 - r["eyes"] - r["inner"]

    def at(point: tuple[float, float, float], radius: float) -> np.ndarray:
        squared = ((np.stack([x, y, z], 1) - np.array(point)) ** 2).sum(1)
        return (np.exp(-0.5 * squared / radius**2) * outer[:, 0])[:, None]

    flush = np.clip(
        at((42, 702, 130), 15) + at((0, 700, 158), 9) + 0.7 * at((11, 700, 148), 8) + 0.5 * r["ears"], 0, 1
    )
    under_eye = np.clip(at((27, 722, 132), 7) + at((36, 723, 129), 6), 0, 1)
    socket = np.clip(at((28, 742, 136), 8) + at((19, 738, 134), 6), 0, 1)
    lash = smooth_step(
        distance_to_line(
            np.stack([x, y, z], 1),
            np.array(
                [
                    (17, 733.3, 131.8),
                    (22, 736.8, 133.6),
                    (29, 738.6, 135.2),
                    (36, 738, 133.6),
                    (41.5, 734.8, 127.5),
                ]
            ),
        )[0],
        2.2,
        0.7,
    )[:, None] * (1 - r["eyes"])
    blood = axes[1] / skin_mean

    mean = np.tile(skin_mean, (len(vertices), 1))
    mean = mean * (1 + 0.55 * flush * blood) * (1 - 0.07 * under_eye) * (1 - 0.06 * socket)
    lip_color = skin_mean * np.array([0.80, 0.55, 0.60])
    brow_color, scalp_color = skin_mean * 0.32, np.array([0.100, 0.076, 0.060])
    inner_color, sclera = np.array([0.15, 0.05, 0.045]), np.array([0.29, 0.265, 0.24])
    mean += r["lips"] * (lip_color - mean)
    mean += 0.78 * r["brows"] * (brow_color - mean)
    mean += r["scalp"] * (scalp_color - mean)
    mean *= 1 - 0.55 * lash
    mean += r["inner"] * (inner_color - mean)
    mean *= 1 - 0.08 * r["beard"]
    iris_part = (smooth_step(iris, 0.43, 0.36) * regions["eyes"])[:, None]
    pupil = (smooth_step(iris, 0.17, 0.10) * regions["eyes"])[:, None]
    ring = (smooth_step(iris, 0.26, 0.36) * smooth_step(iris, 0.47, 0.40) * regions["eyes"])[:, None]
    iris_color = np.array([0.085, 0.055, 0.035])
    mean += r["eyes"] * (sclera - mean)
    mean += iris_part * (iris_color - mean)
    mean *= 1 - 0.5 * ring
    mean += pupil * (0.012 - mean)

    components: list[tuple[str, np.ndarray]] = []

    def add(name: str, where: np.ndarray, color: np.ndarray | float) -> None:
        components.append((name, where * np.broadcast_to(np.asarray(color, float), (3,))))

    # Proportional to the local colour, so that lips, brows and shadows of a dark face stay above black; hair
    # goes part of the way.
    tone = outer * (1 - 0.4 * r["scalp"])
    # Irises take the melanin of the skin, and the white of the eyes a little of it.
    eyes = iris_part * (1 - pupil) + 0.2 * r["eyes"] * (1 - iris_part)
    add("skin lightness", (tone + eyes) * mean / skin_mean, axes[0])
    add("blood", tone * mean / skin_mean, axes[1])
    add("lip redness", r["lips"], lip_color * np.array([0.045, -0.06, -0.05]))
    add("lip darkness", r["lips"], -lip_color * 0.13)
    add("brow density", r["brows"], -skin_mean * np.array([0.07, 0.07, 0.07]))
    add("brow colour", r["brows"], np.array([0.022, 0.013, 0.005]))
    add("hair lightness", r["scalp"], np.array([0.030, 0.024, 0.019]))
    add("hair redness", r["scalp"], np.array([0.008, 0.0, -0.004]))
    add("bald or shaved", r["scalp"], (skin_mean - scalp_color) * 0.07)
    # Towards dark hair, not black, all channels alike: a beard that is darker still must not turn blue.
    hair = skin_mean - np.array([0.030, 0.022, 0.016])
    add("beard", r["beard"], -0.13 * hair)
    chin_only = r["beard"] * smooth_step(x, 32, 20)[:, None]
    add("beard of chin and lip", chin_only, -0.085 * hair)
    add("stubble shade", r["beard"], skin_mean * np.array([-0.03, -0.02, -0.012]))
    add("flush of cheeks and nose", flush, axes[1] * 0.45)
    add("under the eyes", under_eye, -skin_mean * np.array([0.032, 0.038, 0.032]))
    add("eye sockets", socket, -skin_mean * np.array([0.03, 0.036, 0.038]))
    add("lashes and liner", lash, -skin_mean * np.array([0.05, 0.05, 0.05]))
    add("iris lightness", iris_part * (1 - pupil), np.array([0.035, 0.045, 0.05]))
    add("iris hue", iris_part * (1 - pupil), np.array([0.02, 0.002, -0.02]))
    add("sclera", r["eyes"] * (1 - iris_part), np.array([0.07, 0.07, 0.075]))
    upper = smooth_step(y, 690, 770)[:, None] - 0.5
    add("forehead against jaw", tone * upper, -skin_mean * 0.08)

    allowed = regions["eyes"] + regions["inner"] < 0.5
    functions, eigenvalues = manifold_harmonics(vertices, faces, allowed, HARMONICS)
    decay = np.sqrt(eigenvalues[2] / np.maximum(eigenvalues, eigenvalues[2]))
    bounded = np.clip(functions, -1.6, 1.6) * decay[:, None]
    cover = tone * (1 - 0.6 * r["ears"])
    for k in range(HARMONICS):
        components.append((f"smooth lightness {k}", bounded[k][:, None] * cover * mean * 0.03))
    for k in range(CHROMA_HARMONICS):
        components.append((f"smooth chroma {k}", bounded[k][:, None] * cover * axes[1] * 0.08))
    names = tuple(name for name, _ in components)
    return AlbedoPrior(mean, np.stack([value for _, value in components]), names)
