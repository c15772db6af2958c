"""Candidates measured: trained alone or read off shared weights."""

import pytest

from dynlib.book.jobs import spread
from dynlib.book.search_trials import Search, SharedWeights, Trial
from dynlib.errors import InputError
from dynlib.papers.s2dnas import Config
from dynlib.papers.s2dnas.exits import SHARED
from dynlib.papers.s2dnas.search import Judge, Space, policy_search

ASKED = Search(
    "scenes", proxy_width=8, proxy_images=60, proxy_held_out_images=20, proxy_epochs=1, batch_size=30, search_stages=2
)
TRIAL = Trial(ASKED, epochs=1, accelerator="cpu")
SPACE = Space(3, 2, 4)


def test_a_trial_measures_all_thresholds_on_images_that_did_not_train_and_repeats():
    config = Config(cuts=((0, 1, 4),))
    first, again = TRIAL(config), TRIAL(config)
    assert first.outcomes == again.outcomes and len(first.outcomes) == len(SHARED)
    assert [outcome.thresholds for outcome in first.outcomes] == [(value,) for value in SHARED]
    batches, held = TRIAL.data()
    assert (len(batches.samples), len(held.samples)) == (60, 20)
    assert held.mean == batches.mean and held.augment is None
    seen = {image.numpy().tobytes() for image in batches.samples.images}
    assert not seen & {image.numpy().tobytes() for image in held.samples.images}


def test_a_search_on_shared_weights_gives_finite_rewards_of_legal_candidates(tmp_path):
    proxy = SharedWeights(TRIAL, SPACE, str(tmp_path / "weights.safetensors"))
    curve = proxy.train()
    assert len(curve) == 1
    judge = Judge(lambda configs: spread(proxy, configs))
    history = policy_search(SPACE, judge, 10, seed=0)  # two updates
    legal = {SPACE.config(tokens) for tokens in SPACE.every()}
    assert len(history) == 10 and {candidate.config for candidate in history} <= legal
    assert all(0 < candidate.reward < 2 for candidate in history)
    config = history[0].config
    assert proxy(config).outcomes == judge.measured[config].outcomes  # nothing of later candidates stays behind


def test_without_shared_weights_there_is_nothing_to_measure(tmp_path):
    with pytest.raises(InputError, match="no shared weights"):
        SharedWeights(TRIAL, SPACE, str(tmp_path / "none"))(Config(cuts=((0, 1, 4),)))
