"""Intervals over seeds and prompts hold the truth as often as they say, and p-values say the same as intervals."""

import math

import numpy as np
import pytest
from scipy import stats

from stages.evidence import statistics
from stages.evidence.statistics import Estimate
from stages.records import seeds


def generator(seed: int = 0) -> np.random.Generator:
    return seeds.generator("test", seed)


def half_width(seeds_: int, prompts: int, by_seed: float, by_prompt: float, noise: float) -> float:
    """Of the documented interval, by hand, from the variances of one seed, of one prompt and of one measurement."""
    seed, prompt = by_seed / seeds_, by_prompt / prompts
    noise = noise / (seeds_ * prompts)
    variance = seed + prompt + noise
    freedom = variance**2 / ((seed + noise) ** 2 / (seeds_ - 1) + (prompt + noise) ** 2 / (prompts - 1))
    return stats.t.ppf(0.975, max(freedom, seeds_ - 1)) * math.sqrt(variance)


def components(values: np.ndarray) -> tuple[float, float, float]:
    """Variances of one seed, of one prompt and of one measurement, by the two-way analysis of variance."""
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    rest = values - rows[:, None] - columns + values.mean()
    noise = (rest**2).sum() / ((len(rows) - 1) * (len(columns) - 1))
    return rows.var(ddof=1) - noise / len(columns), columns.var(ddof=1) - noise / len(rows), noise


def test_interval_repeats_and_holds_the_mean():
    values = generator().normal(size=(3, 40))
    first, again = (statistics.mean(values) for _ in range(2))
    assert first == again
    assert first.low < first.mean < first.high
    assert first.mean == pytest.approx(values.mean())


def test_interval_moves_and_scales_with_the_data():
    values = generator().normal(size=(3, 40))
    plain, moved = statistics.mean(values), statistics.mean(10 - 2 * values)
    assert moved[:3] == pytest.approx([10 - 2 * x for x in (plain.mean, plain.high, plain.low)])
    assert plain.times(-2) == pytest.approx((moved.mean - 10, moved.low - 10, moved.high - 10, *moved[3:]))


def test_parts_are_those_of_the_analysis_of_variance():
    draw = generator()
    values = draw.normal(size=(5, 1)) + 2 * draw.normal(size=(1, 30)) + draw.normal(size=(5, 30))
    found = statistics.mean(values)
    by_seed, by_prompt, noise = components(values)
    assert found.error**2 == pytest.approx(by_seed / 5 + by_prompt / 30 + noise / 150, rel=0.1)
    assert found.high - found.mean == pytest.approx(half_width(5, 30, by_seed, by_prompt, noise), rel=0.1)


def test_one_seed_and_one_prompt_have_the_interval_of_the_textbook():
    values = generator().normal(size=30)
    textbook = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    for shape in ((1, 30), (30, 1)):
        found = statistics.mean(values.reshape(shape))
        assert found.freedom == pytest.approx(29)
        assert (found.low, found.high) == pytest.approx(textbook, abs=0.02)


def test_what_does_not_vary_has_no_interval():
    alone = statistics.mean(np.array([[2.0], [np.nan]]))
    assert alone.mean == 2 and not alone.resolved and math.isnan(alone.error)
    assert alone.above(0) == alone.below(5) == 1
    assert math.isnan(statistics.mean(np.full((2, 5), np.nan)).mean)
    constant = statistics.mean(np.full((2, 5), 4.0))
    assert constant.mean == 4 and not constant.resolved
    assert constant.above(3.9) == 1, "two seeds that agree by chance would prove anything"


def test_interval_of_a_share_stays_a_share():
    values = (generator().random((2, 30)) < 0.04).astype(float)
    values[1] = 0
    found = statistics.mean(values)
    assert found.low < 0  # it is symmetric
    cut = found.within(0, 1)
    assert cut.low == 0 and cut.high == min(found.high, 1) and cut.error == found.error


def test_pairing_removes_what_two_arms_share():
    draw = generator()
    prompts = 5 * draw.normal(size=(3, 50))
    first, second = prompts + 1 + 0.1 * draw.normal(size=(3, 50)), prompts + 0.1 * draw.normal(size=(3, 50))
    lead = statistics.mean(first - second)
    alone = statistics.mean(first)
    assert lead.low > 0.9 and lead.high < 1.1 and alone.high - alone.low > 1


def test_seeds_with_prompts_of_their_own():
    values = np.full((2, 60), np.nan)
    values[0, :40], values[1, 20:] = generator().normal(1, 1, 40), generator(2).normal(3, 1, 40)
    found = statistics.mean(values)
    assert found.mean == pytest.approx((values[0, :40].mean() + values[1, 20:].mean()) / 2)
    assert found.low < 1.5 and found.high > 2.5  # the seeds differ by 2, which the interval must show


def test_a_seed_that_lacks_a_few_prompts_changes_little():
    values = generator().normal(size=(5, 1)) + generator(2).normal(size=(5, 30))
    whole = statistics.mean(values)
    values[1, :2], values[3, 7] = np.nan, np.nan
    assert statistics.mean(values) == pytest.approx(whole, rel=0.1, abs=0.05)


@pytest.mark.parametrize("spread", [(1, 1, 1), (1, 0, 0.05)])
def test_coverage_of_five_seeds_is_as_documented(spread):
    draw = generator()
    seeds_, prompts, noise = spread  # standard deviations of their parts of the mean
    held, repetitions = 0, 400
    for _ in range(repetitions):
        values = seeds_ * 5**0.5 * draw.normal(size=(5, 1)) + prompts * 30**0.5 * draw.normal(size=(1, 30))
        found = statistics.mean(values + noise * 150**0.5 * draw.normal(size=(5, 30)), replicates=300)
        held += found.low <= 0 <= found.high
    least, most = stats.binom.ppf([0.01, 0.99], repetitions, [0.95, 0.97])  # 0.97: where the noise has a share
    assert least <= held <= most


def test_p_values_agree_with_the_interval():
    found = statistics.mean(generator().normal(size=(4, 20)))
    assert found.above(found.low) == pytest.approx(0.025) == found.below(found.high)
    assert found.above(found.mean) == pytest.approx(0.5)
    for bound in (-1, 0, 1):
        assert found.above(bound) + found.below(bound) == pytest.approx(1)
        assert (found.above(bound) < 0.025) == (found.low > bound)
        assert (found.below(bound) < 0.025) == (found.high < bound)


def test_a_total_adds_variances_and_keeps_freedoms():
    first, second = (statistics.mean(generator(i).normal(i, i, size=(4, 9))) for i in (1, 2))
    found = statistics.total([first, second.times(-1)])
    variance = first.error**2 + second.error**2
    freedom = variance**2 / (first.error**4 / first.freedom + second.error**4 / second.freedom)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    mean = first.mean - second.mean
    assert found == pytest.approx((mean, mean - half, mean + half, math.sqrt(variance), freedom))
    assert statistics.total([first]) == pytest.approx(first)
    assert not statistics.total([first, Estimate(1.0)]).resolved


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.3, 1.0]) == pytest.approx([0.6, 1.0])
    assert len(statistics.holm([])) == 0


def test_improvement_counts_pairs():
    first = np.array([[2, 2, 2, 1], [2, 2, 0, np.nan]], float)
    second = np.array([[1, 1, 1, 1], [1, 1, 1, 1]], float)
    found = statistics.improvement(first, second)
    assert found.mean == pytest.approx((3.5 / 4 + 2 / 3) / 2)
    assert 0 <= found.low < found.mean < found.high == 1
    back = statistics.improvement(second, first)
    assert (back.mean, back.low, back.high) == pytest.approx((1 - found.mean, 1 - found.high, 1 - found.low))


def test_improvement_in_every_pair_has_no_interval():
    first = np.array([[1.0], [2.0]])
    assert not statistics.improvement(first, first - 1).resolved
    ties = statistics.improvement(first, first)
    assert ties.mean == 0.5 and not ties.resolved


def test_seeds_needed_is_the_least_number_that_suffices():
    draw = generator()
    values = 2 * draw.normal(size=(6, 1)) + draw.normal(size=(1, 30)) + draw.normal(size=(6, 30))
    for distance in (0.8, 1.0, 2.0):
        found = statistics.seeds_needed(values, distance)
        assert half_width(found, 30, *components(values)) <= 1.03 * distance  # 1.03: the parts come from resampling
        assert half_width(found - 1, 30, *components(values)) > distance / 1.03
    widths = statistics.mean(values)
    assert statistics.seeds_needed(values, 1.05 * (widths.high - widths.mean)) <= 6


def test_seeds_needed_for_a_sum_of_contrasts():
    draw = generator()
    one, other = 2 * draw.normal(size=(5, 1)), 3 * draw.normal(size=(7, 1))
    alone, both = statistics.seeds_needed(other, 1.0), statistics.seeds_needed([one, other], 1.0)
    assert statistics.seeds_needed([other], 1.0) == alone < both
    variance = one.var(ddof=1) + other.var(ddof=1)
    assert both == pytest.approx(1.96**2 * variance, rel=0.15)


def test_no_number_of_seeds_makes_up_for_few_prompts():
    draw = generator()
    values = draw.normal(size=(5, 1)) + 10 * draw.normal(size=(1, 10))
    assert statistics.seeds_needed(values, 1.0) is None
    assert statistics.seeds_needed(values[:, :1], 0.2, most=5) is None
    assert statistics.seeds_needed(values[:1], 100.0) is None  # one seed does not show how much seeds differ


@pytest.mark.parametrize("values", [[[6.0, 0.0], [0.0, 6.0]], [[6.0, 0, 3], [0, 3, 6], [3, 6, 0]]])
def test_where_seeds_and_prompts_balance_the_noise_makes_the_interval(values):
    """All seeds have one mean and all prompts too, by chance; the values still vary."""
    values = np.array(values)
    found = statistics.mean(values)
    assert found.mean == 3 and 0.5 < found.error / (values.std(ddof=1) / values.size**0.5) < 2
    assert found.low < 0 and statistics.improvement(values, np.full(values.shape, 3.0)).high > 0.9
    assert statistics.seeds_needed(values, 10.0)


def test_what_differs_by_rounding_alone_does_not_vary():
    offline = np.array([[0.1, 0.7], [0.3, 1.1]])
    lead = (offline + 0.3) - offline
    assert lead.min() < lead.max(), "by rounding"
    found = statistics.mean(lead)
    assert not found.resolved and found.above(0.2) == 1
    assert statistics.seeds_needed(lead, 0.1) is None
    assert statistics.mean(np.array([[1e-6, 3e-6, 2e-6]])).resolved, "small is not rounding"


def test_an_accuracy_that_balances_is_not_better_than_chance():
    assert statistics.accuracy(np.array([[1.0, 0.5], [0.5, 1.0]])).low < 0.5
