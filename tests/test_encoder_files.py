"""Trained encoders survive their files, and what is no encoder is refused in clear words."""

import jax
import numpy as np
import pytest
from flax import nnx
from tiny_model import tiny_model

from experiments.export_encoder import mix, shrink_identity
from facefit.encoder.checkpoints import check_config
from facefit.encoder.networks import Encoder, make_confidence_network, make_encoder
from facefit.encoder.weights import (
    TrainedEncoder,
    _empty,
    load_encoder,
    load_imagenet,
    named_arrays,
    save_encoder,
    set_arrays,
)
from facefit.errors import InputError
from facefit.model.npz import read_arrays, write_arrays


@pytest.fixture(scope="module")
def trained():
    """Random numbers in every parameter and statistic, as training would leave them."""
    encoder = make_encoder(tiny_model(), 0, "small+landmarks", 32)
    confidence = make_confidence_network(encoder, 0)
    random = np.random.default_rng(0)
    for network in (encoder, confidence):
        arrays = named_arrays(network)
        numbers = {name: random.uniform(0.5, 1.5, values.shape) for name, values in arrays.items()}
        set_arrays(network, numbers, "random")
    return TrainedEncoder(encoder, confidence, 32, "tiny", "random numbers")


def test_of_two_networks_mixed_every_number_is_between_theirs():
    start, end = (make_encoder(tiny_model(), seed, "small+landmarks", 32) for seed in (1, 2))
    numbers = [named_arrays(network) for network in (start, end)]
    mix(end, start, 0.25, "start.npz")
    for name, values in named_arrays(end).items():
        np.testing.assert_allclose(values, 0.25 * numbers[0][name] + 0.75 * numbers[1][name], atol=1e-6)
    assert any(np.abs(a - b).max() > 0.1 for a, b in zip(numbers[0].values(), numbers[1].values()))
    with pytest.raises(InputError, match="start.npz: not the network of this run"):
        mix(end, make_encoder(tiny_model(), 0, "small", 32), 0.25, "start.npz")


def test_part_of_the_identity_is_kept_and_all_of_the_rest(trained):
    encoder = nnx.clone(trained.encoder)
    shrink_identity(encoder, 0.5)
    random = np.random.default_rng(1)
    image, dense = random.uniform(size=(1, 32, 32, 3)), random.uniform(0, 32, (1, 468, 3))
    image, dense = image.astype(np.float32), dense.astype(np.float32)
    whole, part = (network(image, dense)[0] for network in (trained.encoder, encoder))
    assert np.abs(whole["identity"]).min() > 0
    for name, values in whole.items():
        np.testing.assert_allclose(part[name], (0.5 if name == "identity" else 1) * values, rtol=1e-5)


def test_a_saved_encoder_comes_back_to_half_precision(tmp_path, trained):
    save_encoder(trained, tmp_path / "e.npz")
    found = load_encoder(tmp_path / "e.npz")
    assert (found.size, found.model, found.facts) == (32, "tiny", "random numbers")
    for ours, theirs in ((trained.encoder, found.encoder), (trained.confidence, found.confidence)):
        before, after = named_arrays(ours), named_arrays(theirs)
        assert before.keys() == after.keys()
        for name, values in before.items():
            # Half precision has eleven significant bits.
            np.testing.assert_allclose(after[name], values, rtol=2**-11, err_msg=name)
            if name.endswith((".mean", ".var")):
                np.testing.assert_array_equal(after[name], values, err_msg=name)


def test_an_encoder_without_a_confidence_network_comes_back_without(tmp_path, trained):
    save_encoder(trained._replace(confidence=None), tmp_path / "e.npz")
    assert load_encoder(tmp_path / "e.npz").confidence is None


def test_the_same_encoder_gives_the_same_bytes(tmp_path, trained):
    for name in ("a", "b"):
        save_encoder(trained, tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": np.asarray("something")}, "no encoder of facefit"),
        ({"version": np.asarray(99)}, "newer facefit"),
        ({"backbone": np.asarray("vgg")}, "damaged"),
        ({"size": np.asarray(7)}, "damaged"),
        ({"counts": np.asarray([1, 10**9, 3])}, "damaged"),
        ({"encoder/heads.identity.bias": np.zeros(5, np.float16)}, "heads.identity.bias is of shape"),
        ({"encoder/heads.identity.bias": None}, "heads.identity.bias is missing"),
    ],
)
def test_damaged_encoders_are_refused_by_name_and_reason(tmp_path, trained, change, words):
    save_encoder(trained, tmp_path / "e.npz")
    arrays = read_arrays(tmp_path / "e.npz") | change
    write_arrays({name: values for name, values in arrays.items() if values is not None}, tmp_path / "x.npz")
    with pytest.raises(InputError, match=words) as error:
        load_encoder(tmp_path / "x.npz")
    assert "x.npz" in str(error.value)


def test_imagenet_weights_are_read_in_torchvisions_layout(tmp_path):
    encoder = _empty(lambda: Encoder((4, 3, 2), nnx.Rngs(0), "resnet50", 224))
    random = np.random.default_rng(0)
    theirs = {"fc.weight": np.zeros((1000, 2048), np.float32), "bn1.num_batches_tracked": np.asarray(0)}
    theirs |= {"conv1.weight": random.normal(size=(64, 3, 7, 7)).astype(np.float32)}

    def batch_norm(name, count):
        for part in ("weight", "bias", "running_mean", "running_var"):
            theirs[f"{name}.{part}"] = random.uniform(0.5, 1, count).astype(np.float32)

    batch_norm("bn1", 64)
    inputs = 64
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3)), 1):
        for block in range(blocks):
            at = f"layer{stage}.{block}"
            sizes = [(width, inputs, 1), (width, width, 3), (4 * width, width, 1)]
            for k, (a, b, kernel) in enumerate(sizes, 1):
                theirs[f"{at}.conv{k}.weight"] = np.full((a, b, kernel, kernel), k, np.float32)
                batch_norm(f"{at}.bn{k}", a)
            if not block:
                theirs[f"{at}.downsample.0.weight"] = np.ones((4 * width, inputs, 1, 1), np.float32)
                batch_norm(f"{at}.downsample.1", 4 * width)
            inputs = 4 * width
    write_arrays(theirs, tmp_path / "r.npz", compress=False)
    load_imagenet(encoder, tmp_path / "r.npz")
    backbone = encoder.backbone
    np.testing.assert_array_equal(
        backbone.conv1.kernel.get_value()[2, 5, 1], theirs["conv1.weight"][:, 1, 2, 5]
    )
    np.testing.assert_array_equal(
        backbone.layer3[5].bn2.mean.get_value(), theirs["layer3.5.bn2.running_mean"]
    )
    assert float(jax.numpy.abs(encoder.heads["identity"].kernel.get_value()).max()) == 0.0
    del theirs["layer4.0.downsample.1.weight"]
    write_arrays(theirs, tmp_path / "s.npz", compress=False)
    with pytest.raises(InputError, match=r"s.npz: layer4.0.downsample.1.weight is missing"):
        load_imagenet(encoder, tmp_path / "s.npz")


def test_imagenet_weights_are_for_resnet50_alone(tmp_path, trained):
    with pytest.raises(InputError, match="resnet50"):
        load_imagenet(trained.encoder, tmp_path / "r.npz")


def test_a_run_goes_on_with_the_same_settings_and_refuses_others(tmp_path):
    settings = {"batch": 16, "learning_rate": 1e-3, "labelled": "a"}
    assert check_config(tmp_path / "run", settings) is False
    assert check_config(tmp_path / "run", settings) is True
    with pytest.raises(InputError) as error:
        check_config(tmp_path / "run", settings | {"batch": 32, "seed": 1})
    assert "batch: 16 there, 32 now" in str(error.value) and "seed: None there, 1 now" in str(error.value)
    assert "labelled" not in str(error.value)
