"""The training made for a GPU, on whatever device there is."""

import numpy as np
import pytest
from training_runs import noise_data

from experiments import train_encoder_gpu
from facefit.encoder.weights import load_encoder


@pytest.mark.exhaustive
def test_training_for_a_gpu_learns_while_data_lie_there(tmp_path, monkeypatch):
    monkeypatch.setattr(train_encoder_gpu, "_FEW", 8)
    monkeypatch.setattr(train_encoder_gpu, "_JUDGED", 1)
    data, output = noise_data(tmp_path / "noise"), tmp_path / "encoder.npz"
    figures = train_encoder_gpu.train(
        train_encoder_gpu.Arguments(data, output, minutes=0.02, batch=4, muon=True, capacity=64, size=32)
    )
    assert np.isfinite(list(figures.values())).all()
    trained = load_encoder(output)
    assert trained.size == 32 and "20 steps" in trained.facts
