"""The networks that look at a photograph's crop: ResNet-50 and a small one, with heads that start at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from facefit.model import FaceModel

BACKBONES = ("resnet50", "small", "small+landmarks")
PATCH = 8  # pixels: side of what `PointRefinement` sees around a point


class Features(NamedTuple):
    """What a network sees: the map after its first residual stage (B, h, w, C), and pooled (B, D); and the
    surface points after each `PointRefinement`, crop pixels, the last the best; none where there is none.
    """

    shallow: Float[Array, "B h w C"]
    pooled: Float[Array, "B D"]
    points: tuple[Float[Array, "B 468 2"], ...] = ()


def _convolution(inputs: int, outputs: int, kernel: int, stride: int, dtype, rngs: nnx.Rngs) -> nnx.Conv:
    # Explicit padding, so that a stride of two samples where PyTorch's does and its weights fit.
    border = kernel // 2
    return nnx.Conv(
        inputs,
        outputs,
        (kernel, kernel),
        strides=stride,
        padding=[(border, border)] * 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        rngs=rngs,
    )


def _norm(channels: int, dtype, rngs: nnx.Rngs, scale: float = 1.0) -> nnx.BatchNorm:
    return nnx.BatchNorm(
        channels,
        momentum=0.97,  # the mean of the last thirty steps: short runs are evaluated too
        epsilon=1e-5,
        dtype=dtype,
        scale_init=nnx.initializers.constant(scale),
        rngs=rngs,
    )


class Bottleneck(nnx.Module):
    """The block of ResNet-50: 1x1, 3x3 (with the stride), 1x1 convolution, four times as wide at its end."""

    def __init__(self, inputs: int, width: int, stride: int, dtype, rngs: nnx.Rngs):
        self.conv1, self.bn1 = _convolution(inputs, width, 1, 1, dtype, rngs), _norm(width, dtype, rngs)
        self.conv2, self.bn2 = _convolution(width, width, 3, stride, dtype, rngs), _norm(width, dtype, rngs)
        self.conv3 = _convolution(width, 4 * width, 1, 1, dtype, rngs)
        self.bn3 = _norm(4 * width, dtype, rngs)
        changes = stride != 1 or inputs != 4 * width
        self.shortcut = nnx.data(Shortcut(inputs, 4 * width, stride, dtype, rngs) if changes else None)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """Applies the block; `train` normalises with the batch's own statistics and remembers them."""
        y = nnx.relu(self.bn1(self.conv1(x), use_running_average=not train))
        y = nnx.relu(self.bn2(self.conv2(y), use_running_average=not train))
        y = self.bn3(self.conv3(y), use_running_average=not train)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x, train)))


class PatchConvolution(nnx.Module):
    """A convolution as one matrix product over patches: XLA's own convolutions on CPU take up to thirty times
    as long for the gradient, above all where the kernel is 1x1 or the batch small.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, dtype, rngs: nnx.Rngs):
        self.kernel_size, self.stride = kernel, stride
        self.product = nnx.Linear(
            kernel * kernel * inputs,
            outputs,
            use_bias=False,
            dtype=dtype,
            kernel_init=nnx.initializers.variance_scaling(2.0, "fan_in", "normal"),
            rngs=rngs,
        )

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Zero padding of half the kernel; an even kernel has one pixel more before than after."""
        size, stride = self.kernel_size, self.stride
        height, width = x.shape[1:3]
        before, after = size // 2, (size - 1) // 2
        padded = jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
        shifted = [
            padded[:, row : row + height : stride, column : column + width : stride]
            for row in range(size)
            for column in range(size)
        ]
        return self.product(jnp.concatenate(shifted, -1))


class BasicBlock(nnx.Module):
    """The block of the shallow ResNets: two 3x3 convolutions."""

    def __init__(self, inputs: int, width: int, stride: int, dtype, rngs: nnx.Rngs):
        self.conv1 = PatchConvolution(inputs, width, 3, stride, dtype, rngs)
        self.conv2 = PatchConvolution(width, width, 3, 1, dtype, rngs)
        self.bn1, self.bn2 = _norm(width, dtype, rngs), _norm(width, dtype, rngs)
        changes = stride != 1 or inputs != width
        self.conv3 = nnx.data(PatchConvolution(inputs, width, 1, stride, dtype, rngs) if changes else None)
        self.bn3 = nnx.data(_norm(width, dtype, rngs) if changes else None)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """As `Bottleneck`."""
        y = nnx.relu(self.bn1(self.conv1(x), use_running_average=not train))
        y = self.bn2(self.conv2(y), use_running_average=not train)
        if self.conv3 is not None:
            x = self.bn3(self.conv3(x), use_running_average=not train)
        return nnx.relu(x + y)


class Shortcut(nnx.Module):
    """The path around a block that changes the width or the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, dtype, rngs: nnx.Rngs):
        self.conv = _convolution(inputs, outputs, 1, stride, dtype, rngs)
        self.bn = _norm(outputs, dtype, rngs)

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B h w D"]:
        """As `Bottleneck`."""
        return self.bn(self.conv(x), use_running_average=not train)


class ResNet50(nnx.Module):
    """ResNet-50 without its classifier (He et al. 2016; the stride on the 3x3 convolutions). No mean is
    subtracted from the input, which is sRGB in [0, 1], as Deng et al. feed it.

    Names follow torchvision's, so that its weights can be loaded (see `facefit.encoder.weights`).
    """

    shallow_channels, features = 256, 2048

    def __init__(self, rngs: nnx.Rngs, dtype=jnp.float32):
        self.conv1 = _convolution(3, 64, 7, 2, dtype, rngs)
        self.bn1 = _norm(64, dtype, rngs)
        inputs = 64
        for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3))):
            made = []
            for block in range(blocks):
                made.append(Bottleneck(inputs, width, 2 if stage and not block else 1, dtype, rngs))
                inputs = 4 * width
            setattr(self, f"layer{stage + 1}", nnx.List(made))

    def __call__(self, image: Float[Array, "B H W 3"], train: bool = False) -> Features:
        """Features of sRGB crops in [0, 1]."""
        x = nnx.relu(self.bn1(self.conv1(image), use_running_average=not train))
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for block in self.layer1:
            x = block(x, train)
        shallow = x
        for stage in (self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, train)
        return Features(shallow, x.mean((1, 2)).astype(jnp.float32))


class SmallNetwork(nnx.Module):
    """A residual network for processors: 1.8 M parameters, 0.08 G multiplications at 128 px.

    The last map is also flattened, through a narrow convolution: where in the crop something is seen tells
    the pose and the proportions, and the mean over the map forgets it.
    """

    shallow_channels, features = 64, 512

    def __init__(self, rngs: nnx.Rngs, dtype=jnp.float32, size: int = 128):
        if size % 4:
            raise ValueError(f"size must be a multiple of 4 pixels, got {size}")
        self.stem, self.stem_bn = PatchConvolution(48, 32, 2, 1, dtype, rngs), _norm(32, dtype, rngs)
        blocks, inputs = [], 32
        for width, stride in ((64, 2), (64, 1), (128, 2), (128, 1), (192, 2)):
            blocks.append(BasicBlock(inputs, width, stride, dtype, rngs))
            inputs = width
        self.blocks = nnx.List(blocks)
        side = size // 4
        for _ in range(3):
            side = (side + 1) // 2
        self.narrow, self.narrow_bn = PatchConvolution(192, 32, 1, 1, dtype, rngs), _norm(32, dtype, rngs)
        self.mix = nnx.Linear(192 + 32 * side * side, self.features, use_bias=False, dtype=dtype, rngs=rngs)
        self.mix_bn = _norm(self.features, dtype, rngs)

    def __call__(self, image: Float[Array, "B H W 3"], train: bool = False) -> Features:
        """Features of sRGB crops in [0, 1]; the crops must have the size the network was made for."""
        x = nnx.relu(self.stem_bn(self.stem(_patches(image)), use_running_average=not train))
        shallow = x = self.blocks[1](self.blocks[0](x, train), train)
        for block in list(self.blocks)[2:]:
            x = block(x, train)
        where = nnx.relu(self.narrow_bn(self.narrow(x), use_running_average=not train))
        both = jnp.concatenate([x.mean((1, 2)), where.reshape(len(image), -1)], -1)
        mixed = nnx.relu(self.mix_bn(self.mix(both), use_running_average=not train))
        return Features(shallow, mixed.astype(jnp.float32))


def _patches(image: Float[Array, "B H W 3"]) -> Float[Array, "B h w 48"]:
    """Squares of four by four pixels, less the middle grey."""
    batch, height, width, channels = image.shape
    patches = (image - 0.5).reshape(batch, height // 4, 4, width // 4, 4, channels)
    return patches.swapaxes(2, 3).reshape(batch, height // 4, width // 4, 16 * channels)


def patches_at(
    image: Float[Array, "B H W 3"], points: Float[Array, "B L 2"]
) -> tuple[Float[Array, "B L D"], Float[Array, "B L 2"]]:
    """The picture around points, `PATCH` pixels square, in a row each; and where in the patch's middle pixels
    a point is, in [-.5, .5]. Beyond the border the picture's last pixels are repeated; points further out
    see the border.
    """
    reach = PATCH // 2
    corner = jnp.round(points) - reach  # of whole pixels: slices are fast, and the rest is told
    padded = jnp.pad(image, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    first = jnp.clip(corner + reach, 0, jnp.asarray(image.shape[2:0:-1])).astype(jnp.int32)

    def cut(picture, place):
        return jax.lax.dynamic_slice(picture, (place[1], place[0], 0), (PATCH, PATCH, 3)).ravel()

    cuts = jax.vmap(jax.vmap(cut, in_axes=(None, 0)))(padded, first)
    return cuts, jnp.clip(points - jnp.round(points), -0.5, 0.5)


def map_at(
    values: Float[Array, "B h w C"], points: Float[Array, "B L 2"], size: int
) -> Float[Array, "B L C"]:
    """A map over crops of `size` pixels at points in crop pixels, between its cells bilinear; beyond the
    border its last cells.
    """
    batch, height, width, channels = values.shape
    cells = jnp.asarray([width, height], jnp.float32)
    place = jnp.clip(points * cells / size - 0.5, 0.0, cells - 1.0)
    low = jnp.minimum(jnp.floor(place), cells - 2.0)
    share = (place - low)[..., None]
    first = (low[..., 1] * width + low[..., 0]).astype(jnp.int32)
    flat = values.reshape(batch, height * width, channels)

    def corner(steps: int):
        return jnp.take_along_axis(flat, (first + steps)[..., None], axis=1)

    above = corner(0) * (1.0 - share[..., 0, :]) + corner(1) * share[..., 0, :]
    below = corner(width) * (1.0 - share[..., 0, :]) + corner(width + 1) * share[..., 0, :]
    return above * (1.0 - share[..., 1, :]) + below * share[..., 1, :]


class PointRefinement(nnx.Module):
    """From the detector's dense points to where the picture shows those points of the surface, in rounds.

    The picture around a point, from near and from twice as far, and a map of the backbone there say how far
    it is off, each point with weights of its own at the end; a detector's habits, which follow pose and
    shape, are told by all points, what all of them see, and the whole picture. The next round looks again
    from where the points are by then. Rounds see with the same weights and move with their own, which start
    at zero: the points are then the detector's.
    """

    rounds, features = 2, 96

    def __init__(self, rngs: nnx.Rngs, size: int, seen: int, channels: int):
        """
        Args:
            size: side of the crops, pixels. seen: features of the whole picture and of the points together.
            channels: of the map.
        """
        near, local, told = 96, 64, 2
        self.size = size
        he, zero = nnx.initializers.he_normal(), nnx.initializers.zeros
        self.look = nnx.Linear(2 * (3 * PATCH**2 + 2) + channels, near, kernel_init=he, rngs=rngs)
        self.which = nnx.Param(jnp.zeros((468, near), jnp.float32))
        self.think = nnx.Linear(near, local, kernel_init=he, rngs=rngs)
        self.move = nnx.Param(jnp.zeros((self.rounds, 468, local, 2), jnp.float32))
        self.tell = nnx.Param(jax.random.normal(rngs.params(), (468, local, told)) / local**0.5)
        self.whole = nnx.Linear(told * 468 + seen, self.features, kernel_init=he, rngs=rngs)
        self.shift = nnx.List(
            [
                nnx.Linear(self.features, 2 * 468, kernel_init=zero, bias_init=zero, rngs=rngs)
                for _ in range(self.rounds)
            ]
        )

    def __call__(
        self,
        image: Float[Array, "B H W 3"],
        dense: Float[Array, "B 468 3"],
        shallow: Float[Array, "B h w C"],
        seen: Float[Array, "B D"],
        combine: Callable[[Float[Array, "B 468 2"]], Float[Array, "B C"]],
    ) -> tuple[tuple[Float[Array, "B 468 2"], ...], Float[Array, "B F"]]:
        """The points after each round, crop pixels, and what all of them saw together in the last.

        Args:
            combine: few numbers for where all points are.
        """
        points, found, count = dense[..., :2], [], len(image)
        half = image.reshape(count, self.size // 2, 2, self.size // 2, 2, 3).mean((2, 4))
        for number, shift in enumerate(self.shift):
            around = [*patches_at(image - 0.5, points), *patches_at(half - 0.5, points / 2)]
            around.append(map_at(shallow, points, self.size))
            local = nnx.gelu(self.look(jnp.concatenate(around, -1)) + self.which[...])
            local = nnx.gelu(self.think(local))
            told = jnp.einsum("blc,lcd->bld", local, self.tell[...]).reshape(count, -1)
            common = nnx.gelu(self.whole(jnp.concatenate([combine(points), told, seen], -1)))
            points = points + jnp.einsum("blc,lcd->bld", local, self.move[number])
            points = points + shift(common).reshape(points.shape)
            found.append(points)
        return tuple(found), common


class PointFeatures(nnx.Module):
    """What surface points tell of pose and shape: three fully connected layers over combinations of places.

    Without normalisation by the batch, whose noise would cost more precision than the points have.
    """

    combinations, features = 128, 384

    def __init__(self, rngs: nnx.Rngs, size: int):
        self.size = size
        self.combine = nnx.Linear(2 * 468, self.combinations, use_bias=False, rngs=rngs)
        widths = (self.combinations, 416, 416, self.features)
        self.layers = nnx.List(
            [
                nnx.Linear(a, b, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
                for a, b in zip(widths[:-1], widths[1:])
            ]
        )

    def combined(self, points: Float[Array, "B 468 2"]) -> Float[Array, "B C"]:
        """Linear combinations of the places of points in crop pixels."""
        return self.combine((4.0 * (points / self.size - 0.5)).reshape(len(points), -1))

    def __call__(self, points: Float[Array, "B 468 2"]) -> Float[Array, "B D"]:
        """Features of points in crop pixels."""
        x = self.combined(points)
        for layer in self.layers:
            x = nnx.gelu(layer(x))
        return x


class Encoder(nnx.Module):
    """R-Net of Deng et al. 2019: a backbone and seven heads whose weights and biases start at zero, so that
    the untrained network predicts the mean face, frontal, at the start's distance, in the start's light.

    "small+landmarks" is not the paper's: it is also told the dense landmarks by which every crop is cut,
    which the detector has found anyway, moves them to where it sees the surface, and concludes from these
    points and the picture. To find points to a pixel is what takes a network most of its training; given
    them, a thousandth of the paper's training is enough to be of use. How points and shape hang together can
    be learned without pictures (`facefit.encoder.surface_points.draw_random_faces`).
    """

    def __init__(
        self,
        counts: tuple[int, int, int],
        rngs: nnx.Rngs,
        backbone: str = "small",
        size: int = 128,
        dtype=jnp.float32,
    ):
        """
        Args:
            counts: coefficients of identity, expression and albedo.
            backbone: one of `BACKBONES`.
            size: side of the crops, pixels.
            dtype: of the backbone's arithmetic; parameters, heads and statistics are float32.
        """
        if backbone not in BACKBONES:
            raise ValueError(f"backbone {backbone!r}: choose one of {', '.join(BACKBONES)}")
        large = backbone == "resnet50"
        self.backbone = ResNet50(rngs, dtype) if large else SmallNetwork(rngs, dtype, size)
        told = backbone == "small+landmarks"
        seen = self.backbone.features + PointFeatures.combinations, self.backbone.shallow_channels
        self.refinement = nnx.data(PointRefinement(rngs, size, *seen) if told else None)
        self.points = nnx.data(PointFeatures(rngs, size) if told else None)
        self.name, self.features = backbone, self.backbone.features
        if told:
            self.features += self.refinement.features + self.points.features
        sizes = dict(zip(("identity", "expression", "albedo"), counts))
        sizes |= {"rotation": 3, "lighting": 27, "place": 2, "depth": 1}
        zero = nnx.initializers.zeros
        self.heads = nnx.Dict(
            {name: nnx.Linear(self.features, number, kernel_init=zero, bias_init=zero, rngs=rngs)
             for name, number in sizes.items()}
        )  # fmt: skip

    def __call__(
        self, image: Float[Array, "B H W 3"], dense: Float[Array, "B 468 3"], train: bool = False
    ) -> tuple[dict[str, Float[Array, "B C"]], Features]:
        """The heads' outputs, for `facefit.encoder.coefficients.coefficients`, and the features behind them.

        Args:
            image: sRGB crops in [0, 1].
            dense: Face Mesh points, crop pixels; only "small+landmarks" looks at them.
            train: normalise with the batch's statistics, and remember them.
        """
        features = self.backbone(image, train)
        if self.points is not None:
            points, common = self.refinement(
                image, dense, features.shallow, features.pooled, self.points.combined
            )
            all_of_them = [features.pooled, common, self.points(points[-1])]
            features = features._replace(pooled=jnp.concatenate(all_of_them, -1), points=points)
        return self._predicted(features.pooled), features

    def from_points(self, points: Float[Array, "B 468 2"]) -> dict[str, Float[Array, "B C"]]:
        """The heads' outputs by surface points alone, crop pixels: of "small+landmarks" where the picture
        says nothing.
        """
        seen = self.points(points)
        unseen = jnp.zeros((len(points), self.features - self.points.features), seen.dtype)
        return self._predicted(jnp.concatenate([unseen, seen], -1))

    def _predicted(self, features: Float[Array, "B D"]) -> dict[str, Float[Array, "B C"]]:
        return {name: head(features) for name, head in self.heads.items()}


class ConfidenceNetwork(nnx.Module):
    """C-Net of Deng et al. 2019: how far each identity coefficient of a photograph can be trusted.

    Its inputs are the R-Net's map after the first residual stage, through three 3x3 convolutions of stride
    two and a mean, and the R-Net's pooled features; two fully connected layers and a sigmoid follow. The last
    layer starts at zero: all confidences are then equal, and the aggregate is the mean.
    """

    def __init__(
        self,
        identity: int,
        shallow_channels: int,
        features: int,
        rngs: nnx.Rngs,
        width: int = 256,
        hidden: int = 512,
    ):
        channels = (shallow_channels, width, width, width)
        self.convolutions = nnx.List(
            [
                nnx.Conv(a, b, (3, 3), strides=2, padding=1, rngs=rngs)
                for a, b in zip(channels[:-1], channels[1:])
            ]
        )
        self.first = nnx.Linear(width + features, hidden, rngs=rngs)
        zero = nnx.initializers.zeros
        self.last = nnx.Linear(hidden, identity, kernel_init=zero, bias_init=zero, rngs=rngs)

    def __call__(self, features: Features) -> Float[Array, "B I"]:
        """Confidences in (0, 1)."""
        x = features.shallow
        for convolution in self.convolutions:
            x = nnx.relu(convolution(x))
        both = jnp.concatenate([x.mean((1, 2)), features.pooled], -1)
        return jax.nn.sigmoid(self.last(nnx.relu(self.first(both))))


def aggregate(
    values: Float[Array, "*batch M I"],
    confidence: Float[Array, "*batch M I"],
    present: Float[Array, "*batch M"] | None = None,
) -> Float[Array, "*batch I"]:
    """One person's coefficients from M photographs: the mean weighted by confidence, element by element
    (Deng et al. 2019).

    Args:
        present: 1 for each photograph that is there, 0 for padding; None where all are. One at least must be.
    """
    weight = confidence if present is None else confidence * present[..., None]
    return jnp.sum(weight * values, -2) / jnp.maximum(jnp.sum(weight, -2), 1e-12)


def make_encoder(
    model: FaceModel, seed: int, backbone: str = "small", size: int = 128, dtype=jnp.float32
) -> Encoder:
    """An untrained encoder for a model's coefficients."""
    counts = tuple(len(basis) for basis in (model.identity_basis, model.expression_basis, model.albedo_basis))
    # As one program: parameter by parameter it would compile for half a minute.
    return nnx.jit(lambda: Encoder(counts, nnx.Rngs(seed), backbone, size, dtype))()


def make_confidence_network(encoder: Encoder, seed: int) -> ConfidenceNetwork:
    """An untrained C-Net for an encoder: the paper's widths for ResNet-50, a quarter for the small one."""
    backbone = encoder.backbone
    identity = encoder.heads["identity"].out_features
    widths = (256, 512) if isinstance(backbone, ResNet50) else (64, 128)
    channels, features = backbone.shallow_channels, encoder.features
    return nnx.jit(lambda: ConfidenceNetwork(identity, channels, features, nnx.Rngs(seed), *widths))()
