"""A training run killed twenty times at random moments computes what an unbroken one does."""

import numpy as np
import pytest
from training_runs import assert_same_curve, curve, noise_data, train, train_and_kill

KILLS, STEPS = 20, 40


@pytest.mark.exhaustive
def test_twenty_kills_at_random_moments_leave_the_loss_curve_as_it_is(tmp_path):
    pytest.importorskip("grain")
    data, random = noise_data(tmp_path / "noise"), np.random.default_rng(7)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    done = train(unbroken, data, STEPS)
    assert done.returncode == 0, done.stderr
    reached = []
    for _ in range(KILLS):
        # No more steps: while the program starts, restores, or compiles. Else while it trains or saves.
        after = int(random.integers(0, 4))
        train_and_kill(killed, data, STEPS, after, random.uniform(0, 0.5 if after else 8.0))
        reached.append(max(curve(killed), default=0))
    assert 0 < reached[-1] < STEPS, reached  # every one of them broke a run
    assert len(set(reached)) > KILLS // 3, reached
    done = train(killed, data, STEPS)
    assert done.returncode == 0, done.stderr
    assert_same_curve(killed, unbroken, STEPS)
