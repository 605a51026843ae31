"""An ablation's trainings differ from the whole in what their names say, and its table tells by how much."""

import dataclasses

import pytest

from experiments.ablate_encoder import ADDED_TRUTH, TRUTH, Arguments, ablate, table, variants
from facefit.encoder.losses import Weights
from facefit.errors import InputError

CONFIG = dataclasses.replace(Arguments.config, labelled="faces", photographs=("photographs",), start="e.npz")
PAPER = ("photometric", "landmarks", "identity_feature", "coefficients", "light_color", "reflectance")


def test_every_loss_of_the_paper_is_left_out_in_turn_and_nothing_else_with_it():
    found = variants(CONFIG)
    whole = found["all"]
    assert all(getattr(whole.weights, name) == getattr(Weights(), name) for name in PAPER)
    for name in PAPER:
        config = found[f"no_{name}"]
        assert getattr(config.weights, name) == 0
        restored = config.weights.replace(**{name: getattr(whole.weights, name)})
        first = whole.first_landmarks
        assert dataclasses.replace(config, weights=restored, first_landmarks=first) == whole
    # Where the first steps weigh the landmarks otherwise, they are left out there too.
    assert found["no_landmarks"].first_landmarks == 0 and found["no_photometric"].first_landmarks > 0
    assert all(getattr(whole.weights, name) == 0 for name in TRUTH)
    assert found["with_truth"].weights == whole.weights.replace(**ADDED_TRUTH)
    assert variants(found["with_truth"])["no_truth"] == whole
    assert (found["no_labelled_faces"].labelled, found["no_photographs"].photographs) == ("", ())
    assert dataclasses.replace(found["other_order"], seed=whole.seed) == whole != found["other_order"]


def test_a_loss_that_counts_nothing_is_not_left_out_again():
    weights = CONFIG.weights.replace(identity_feature=0.0)
    found = variants(dataclasses.replace(CONFIG, weights=weights, labelled="", start=""))
    assert not {"no_identity_feature", "no_truth", "with_truth", "no_labelled_faces", "no_photographs"} & set(
        found
    )
    assert not found["all"].keep_statistics  # there are none to keep


def test_the_table_tells_differences_from_all_losses():
    faces = {"neutral_mm": 2.0, "improvement": 0.2}
    results = {
        "start": {"labelled": faces},
        "all": {"labelled": faces, "photographs": {"nme_percent": 1.5}},
        "no_light_color": {"labelled": faces | {"neutral_mm": 2.25}, "photographs": {"nme_percent": 1.25}},
    }
    assert table(results).splitlines() == [
        "| | neutral face, mm | nearer than the mean face, % | landmarks, % of box |",
        "|---|---|---|---|",
        "| the start | 2.000 | 20.0 |  |",
        "| all losses | 2.000 | 20.0 | 1.50 |",
        "| without light color | 2.250 (+0.250) | 20.0 (+0.0) | 1.25 (-0.25) |",
    ]


@pytest.mark.parametrize(
    "change, said", [({"rows": ("no_nothing",)}, "no_nothing"), ({"config": Arguments.config}, "no data")]
)
def test_what_cannot_be_done_is_refused_in_a_sentence(tmp_path, change, said):
    arguments = dataclasses.replace(Arguments(run=tmp_path / "run", config=CONFIG), **change)
    with pytest.raises(InputError, match=said):
        ablate(arguments)
    assert not (tmp_path / "run").exists()
