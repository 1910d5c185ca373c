"""evaluate(): the measures, the matching by label, what is left out, what is refused."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pandas as pd
import pytest

from stdeconv_fast import DataError, DataTypeError, DataWarning, evaluate
from tests.naive import scoring as naive

ORIGINAL_KEYS = ["mse", "mae", "r2", "pearson", "spearman", "cosine"]


def tables(n_spots=23, n_types=5, seed=0):
    """A sparse truth and proportions near it, with ties; every type varies."""
    rng = np.random.default_rng(seed)
    truth = rng.multinomial(6, np.full(n_types, 1 / n_types), n_spots) / 6
    near = np.round(0.6 * truth + 0.4 * rng.dirichlet(np.ones(n_types), n_spots), 2)
    near /= near.sum(axis=1, keepdims=True)
    spots, types = [f"s{i}" for i in range(n_spots)], [f"t{k}" for k in range(n_types)]
    return pd.DataFrame(near, spots, types), pd.DataFrame(truth, spots, types)


def plain(score):
    return {key: value for key, value in score.items() if key != "per_type"}


@pytest.mark.parametrize("seed", range(5))
def test_measures_equal_the_naive_ones(seed):
    proportions, truth = tables(seed=seed)
    score = evaluate(proportions, truth)
    assert list(score)[:6] == ORIGINAL_KEYS
    expected = naive.measures(proportions.to_numpy().tolist(), truth.to_numpy().tolist())
    assert {key: score[key] for key in expected} == pytest.approx(expected, rel=1e-12, abs=1e-14)
    for k, name in enumerate(truth.columns):
        row = score["per_type"].loc[name]
        p, t = proportions.iloc[:, k], truth.iloc[:, k]
        assert row["pearson"] == pytest.approx(naive.pearson(p, t), rel=1e-12)
        assert row["rmse"] == pytest.approx(math.sqrt(((p - t) ** 2).mean()), rel=1e-12)
        assert (row["mean_truth"], row["mean_predicted"]) == pytest.approx((t.mean(), p.mean()))
    assert (score["n_spots"], score["n_spots_left_out"]) == (len(truth), 0)


def test_no_truth_no_score():
    assert evaluate(tables()[0], None) is None


def test_perfect_proportions():
    truth = tables()[1]
    score = evaluate(truth, truth)
    assert (score["mse"], score["jsd"], score["auprc"], score["r2"]) == (0, 0, 1, 1)
    assert (score["pearson"], score["spearman"], score["cosine"]) == pytest.approx((1, 1, 1))


def test_labels_decide_not_positions():
    proportions, truth = tables()
    shuffled = truth.sample(frac=1, random_state=3).iloc[:, ::-1]
    assert plain(evaluate(proportions, shuffled)) == pytest.approx(plain(evaluate(proportions, truth)))


def test_numbers_and_their_texts_are_the_same_label():
    proportions, truth = tables()
    numbered = truth.set_axis(range(len(truth)), axis=0).set_axis(range(truth.shape[1]), axis=1)
    texts = proportions.set_axis(map(str, range(len(truth))), axis=0).set_axis(
        map(str, range(truth.shape[1])), axis=1
    )
    assert plain(evaluate(texts, numbered)) == pytest.approx(plain(evaluate(proportions, truth)))


def test_arrays_are_matched_by_position():
    proportions, truth = tables()
    whole = evaluate(proportions, truth)
    for pair in ((proportions.to_numpy(), truth.to_numpy()), (proportions, truth.to_numpy())):
        assert plain(evaluate(*pair)) == pytest.approx(plain(whole))
    assert list(evaluate(proportions.to_numpy(), truth)["per_type"].index) == list(truth.columns)
    assert list(evaluate(proportions, truth.to_numpy())["per_type"].index) == list(truth.columns)
    assert list(evaluate(proportions.to_numpy(), truth.to_numpy())["per_type"].index) == list("01234")


def test_rows_are_normalised():
    proportions, truth = tables()
    sizes = np.arange(1, len(truth) + 1)
    assert plain(evaluate(proportions * 7, truth.mul(sizes, axis=0))) == pytest.approx(
        plain(evaluate(proportions, truth))
    )


def test_a_type_that_the_proportions_lack_counts_as_zero():
    proportions, truth = tables()
    without = proportions.drop(columns="t1")
    zero = proportions.assign(t1=0.0)
    score = evaluate(without, truth)
    assert plain(score) == pytest.approx(plain(evaluate(zero, truth)))
    assert "t1" in score["per_type"].index and math.isnan(score["per_type"].loc["t1", "pearson"])


def test_a_type_that_the_truth_lacks_counts_as_zero():
    proportions, truth = tables()
    more = proportions.assign(other=0.2)
    score = evaluate(more, truth)
    assert plain(score) == pytest.approx(plain(evaluate(more, truth.assign(other=0.0))))
    assert list(score["per_type"].index) == [*truth.columns, "other"]


def test_spots_on_one_side_only_are_named_in_a_warning():
    proportions, truth = tables()
    with pytest.warns(DataWarning, match="18 spots are compared: of 20 spots in the proportions and 21 in the truth"):
        score = evaluate(proportions.iloc[:20], truth.iloc[2:])
    assert plain(score) == pytest.approx(plain(evaluate(proportions.iloc[2:20], truth.iloc[2:20])))


def test_spots_without_an_answer_are_left_out_and_counted():
    proportions, truth = tables()
    proportions.iloc[[1, 4]] = np.nan
    truth.iloc[7] = 0
    score = evaluate(proportions, truth)
    keep = [i for i in range(len(truth)) if i not in (1, 4, 7)]
    expected = evaluate(proportions.iloc[keep], truth.iloc[keep])
    assert (score["n_spots"], score["n_spots_left_out"]) == (len(keep), 3)
    assert {k: score[k] for k in ORIGINAL_KEYS} == pytest.approx({k: expected[k] for k in ORIGINAL_KEYS})
    with_more_types = evaluate(proportions, truth.assign(other=0.0))
    assert with_more_types["n_spots_left_out"] == 3


def test_a_single_nan_counts_as_zero():
    proportions, truth = tables()
    gap, filled = proportions.copy(), proportions.copy()
    gap.iloc[2, 1], filled.iloc[2, 1] = np.nan, 0.0
    assert plain(evaluate(gap, truth)) == pytest.approx(plain(evaluate(filled, truth)))


def test_degenerate_cases_give_nan_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uniform = np.full((6, 4), 0.25)
        score = evaluate(tables(6, 4)[0].to_numpy(), uniform)
        assert math.isnan(score["pearson"]) and math.isnan(score["spearman"]) and math.isnan(score["pearson_type"])
        assert score["r2"] == 0 and score["auprc"] == 1
        assert evaluate(uniform, uniform)["r2"] == 1
        alone = evaluate(np.ones((1, 1)), np.ones((1, 1)))
        assert math.isnan(alone["r2"]) and alone["mse"] == 0
        zeros = evaluate(np.zeros((2, 2)), np.eye(2))
        assert (zeros["cosine"], zeros["jsd"]) == (0, 0.5)


def test_opposite_proportions():
    score = evaluate(np.eye(2)[::-1], np.eye(2))
    assert (score["jsd"], score["cosine"], score["pearson"]) == pytest.approx((1, 0, -1))


def test_refusals():
    proportions, truth = tables()
    with pytest.raises(DataError, match=r"same shape .* got \(23, 5\) and \(22, 5\)"):
        evaluate(proportions, truth.to_numpy()[1:])
    with pytest.raises(DataError, match="name each spot once; got 's0' 2 times"):
        evaluate(proportions, pd.concat([truth, truth.iloc[:1]]))
    with pytest.raises(DataError, match="`proportions` must name each type once; got 't0' 2 times"):
        evaluate(pd.concat([proportions, proportions["t0"]], axis=1), truth)
    with pytest.raises(DataError, match="share at least one spot; got none of 23 and 23. First names: 's0', 'xs0'"):
        evaluate(proportions, truth.rename(index=lambda name: "x" + name))
    with pytest.raises(DataError, match="share at least one type"):
        evaluate(proportions, truth.set_axis(list("abcde"), axis=1))
    with pytest.raises(DataError, match="finite and >= 0, or NaN; got -1 at spot 's0', type 't0'"):
        evaluate(proportions, truth.mask(truth.index.to_series() == "s0", -1.0))
    with pytest.raises(DataError, match="about at least one spot; got none in 23"):
        evaluate(proportions * np.nan, truth)
    with pytest.raises(DataTypeError, match="`truth` must be a table of numbers; got str"):
        evaluate(proportions, "truth.csv")
    with pytest.raises(DataTypeError, match="two dimensions"):
        evaluate(proportions, truth["t0"].to_numpy())
