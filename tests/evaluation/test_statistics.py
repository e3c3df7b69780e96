import numpy as np
import pytest
import scipy.stats

from keep.evaluation.statistics import Interval, bootstrap, paired

SCORES = np.random.default_rng(0).gamma(2, size=40)


def test_interval_equals_scipy():
    expected = scipy.stats.bootstrap((SCORES,), np.mean, method="percentile", rng=np.random.default_rng(1))
    found = bootstrap(SCORES)
    width = found.high - found.low
    assert found.mean == SCORES.mean()
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.05 * width)


def test_interval_of_two_clips_by_hand():
    # Half of the draws have one of each, a quarter twice the smaller, a quarter twice the larger.
    assert bootstrap(np.array([1.0, 3.0])) == Interval(2.0, 1.0, 3.0, 2)
    found = bootstrap(np.array([1.0, 3.0]), level=0.4)
    assert (found.low, found.high) == (2.0, 2.0)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [bootstrap(rng.normal(5, 2, 50), resamples=500, seed=i) for i in range(200)]
    hits = sum(i.low <= 5 <= i.high for i in intervals)
    assert 176 <= hits <= 198  # of 200, 95 % wanted


def test_equal_calls_give_equal_intervals():
    assert bootstrap(SCORES) == bootstrap(SCORES)
    assert bootstrap(SCORES) != bootstrap(SCORES, seed=1)
    assert paired(SCORES, SCORES[::-1]) == paired(SCORES, SCORES[::-1])


def test_clips_without_a_score():
    found = bootstrap(np.array([np.nan, 2, np.nan, 4]))
    assert (found.mean, found.clips) == (3, 2)
    for scores, mean in (([], np.nan), ([np.nan], np.nan), ([2.0], 2.0), ([2.0, np.inf], np.inf)):
        found = bootstrap(np.array(scores))
        assert found.mean == pytest.approx(mean, nan_ok=True)
        assert np.isnan(found.low)
        assert np.isnan(found.high)


def test_paired_takes_out_what_clips_have_in_common():
    rng = np.random.default_rng(0)
    hardness = rng.normal(28, 4, 30)
    a, b = hardness + 0.1 + rng.normal(0, 0.05, 30), hardness
    alone = [bootstrap(x) for x in (a, b)]
    assert alone[0].low < alone[1].high  # a lead of 0.1 dB is lost between intervals of 1.4 dB
    found = paired(a, b)
    assert found.clear
    assert found.mean == pytest.approx((a - b).mean())
    assert found.low < found.mean < found.high
    assert found.p < 0.001
    assert paired(b, a).mean == -found.mean


def test_noise_is_not_clear():
    found = paired(SCORES, np.random.default_rng(3).permutation(SCORES))
    assert not found.clear
    assert found.p > 0.05


def test_p_by_hand():
    # Three differences 1, 2, 3: of the 8 sign changes only +++ and --- have a sum as far from zero.
    assert paired(np.array([1.0, 2, 3]), np.zeros(3)).p == 0.25
    # 1, 2, -1: sums ±2 ±4 ±2 ±0 → |2| or more in six of eight.
    assert paired(np.array([1.0, 2, -1]), np.zeros(3)).p == 0.75
    assert paired(np.zeros(5), np.zeros(5)).p == 1


def test_p_by_sampling_agrees_with_scipy():
    a, b = SCORES[:20] + 0.3, SCORES[20:]
    expected = scipy.stats.permutation_test(
        (a - b, np.zeros(20)), lambda x, y, axis: np.mean(x - y, axis), permutation_type="samples",
        n_resamples=9999, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert paired(a, b).p == pytest.approx(expected.pvalue, abs=0.02)


def test_pairs_that_are_not_both_there():
    found = paired(np.array([1.0, np.nan, np.inf, 4]), np.array([0.0, 1, np.inf, 1]))
    assert (found.mean, found.clips) == (2, 2)
    alone = paired(np.array([1.0]), np.array([0.0]))
    assert alone.mean == 1
    assert np.isnan(alone.p)
    assert not alone.clear
