"""The constants of a fit: standard deviations of the evidence and the priors, and how long to iterate."""

from __future__ import annotations

from flax import struct


@struct.dataclass
class Settings:
    """Sizes are static; the rest are traced, so other values need no other program.

    The standard deviations describe how the evidence misses the truth; the effective counts say how many
    independent measurements it amounts to, since the errors of neighbouring landmarks and pixels are strongly
    correlated and counting each alone would drown the prior.

    Attributes:
        landmark_steps, photometric_steps: solver steps of the two stages; for several photographs a third
            stage, that compares them with each other, has as many as the second.
        estimated_landmark_steps, estimated_photometric_steps: at most as many where the fit starts from an
            estimate of the face (see `facefit.fit.estimate`), from which it has less far to go.
        crop_px: side of the square that photometric fitting sees, pixels.
        pixels: how many of its pixels are used at most; every fourth one may be.
        dense_sigma: floor of the dense landmarks' standard deviation, as a fraction of the outer-eye
            distance.
        dense_count: effective number of independent dense landmarks.
        depth_sigma: the same for the network's depth estimates; they are a guess from a single view.
        depth_count: effective number of depth estimates; 0 leaves them out.
        sparse_sigma, sparse_count: for 68 landmarks from dlib or from the user.
        outline_sigma: of the visible outline, fraction of the outer-eye distance.
        outline_count: effective number of outline points.
        aperture_sigma: of the distances between the lids and between the inner lips, fraction of the
            outer-eye distance.
        landmark_outlier: where a landmark becomes an outlier, standard deviations.
        photometric_sigma: of an sRGB value.
        photometric_count: effective number of independent pixels. More of them help where skin and light are
            as the model has them, as in synthetic pictures, and do harm in photographs.
        photometric_outlier: where a pixel becomes an outlier, standard deviations.
        identity_sigma: of the identity coefficients; 1 is the model's own prior.
        identity_kept: what is kept of the fitted identity. Landmarks and pixels err together, so a fit
            overstates how a face differs from the mean: synthetic faces, whose truth is known, differ from
            it by about half as much as their fits do; real scans want more kept. 1 where the landmarks are
            exact.
        final_steps: solver steps of the views alone, given the identity that is kept.
        expression_sigma: of a blendshape weight (standard deviations for a Gaussian basis).
        lighting_sigma, lighting_color_sigma: see `facefit.energy.priors.lighting_residuals`.
        negative_sigma: how far irradiance or albedo may fall below the least that is plausible.
        exposure_log_sigma: of the mean irradiance about one.
        distance_mm, distance_log_sigma: prior of the camera's distance.
        focal_log_sigma: of the focal length about 1.2 x the longer side of the photograph, where EXIF tells
            nothing.
        exif_log_sigma: of the focal length where EXIF tells it.
    """

    landmark_steps: int = 8
    photometric_steps: int = 8
    final_steps: int = 3
    estimated_landmark_steps: int = 2
    estimated_photometric_steps: int = 6
    crop_px: int = struct.field(pytree_node=False, default=104)
    pixels: int = struct.field(pytree_node=False, default=1024)
    dense_sigma: float = 0.015
    dense_count: float = 40.0
    depth_sigma: float = 0.02
    depth_count: float = 10.0
    sparse_sigma: float = 0.03
    sparse_count: float = 40.0
    outline_sigma: float = 0.03
    outline_count: float = 6.0
    aperture_sigma: float = 0.01
    landmark_outlier: float = 4.0
    photometric_sigma: float = 0.1
    photometric_count: float = 60.0
    photometric_outlier: float = 4.0
    identity_sigma: float = 1.0
    identity_kept: float = 0.75
    expression_sigma: float = 0.25
    lighting_sigma: float = 1.0
    lighting_color_sigma: float = 0.15
    negative_sigma: float = 0.05
    exposure_log_sigma: float = 0.08
    distance_mm: float = 800.0
    distance_log_sigma: float = 0.4
    focal_log_sigma: float = 0.6
    exif_log_sigma: float = 0.05


PRESETS = {
    "fast": Settings(
        landmark_steps=6, photometric_steps=4, estimated_photometric_steps=3, crop_px=80, pixels=640
    ),
    "default": Settings(),
    "best": Settings(
        landmark_steps=20,
        photometric_steps=20,
        estimated_landmark_steps=4,
        estimated_photometric_steps=16,
        crop_px=160,
        pixels=2560,
    ),
}
