import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fisherbook.statistics import findings, texts
from fisherbook.statistics.estimates import Estimate
from fisherbook.statistics.findings import Claim, judge


def verdict(claim, value, standard_error, dof=1e6, replicates=8, people=None):
    return judge({claim: Estimate(value, standard_error, dof, replicates, people)})[0].verdict


ABOVE = Claim("more than half", "above", 0.5)
BELOW = Claim("less than half", "below", 0.5)
SIMILAR = Claim("an exponent of one", "similar", 0.1, target=1.0)
RATIO = Claim("the same within 1.5", "similar", 1.5, ratio=True)


@pytest.mark.parametrize(
    ("claim", "value", "expected"),
    [
        (ABOVE, 0.55, "holds"),
        (ABOVE, 0.51, "not settled"),
        (ABOVE, 0.45, "does not hold"),
        (BELOW, 0.45, "holds"),
        (BELOW, 0.49, "not settled"),
        (BELOW, 0.55, "does not hold"),
        (SIMILAR, 1.05, "holds"),
        (SIMILAR, 1.09, "not settled"),
        (SIMILAR, 0.85, "does not hold"),
        (RATIO, np.log(1.4), "holds"),
        (RATIO, np.log(1.49), "not settled"),
        (RATIO, np.log(0.6), "does not hold"),
    ],
)
def test_the_verdict_is_the_side_on_which_the_whole_interval_lies(claim, value, expected):
    assert verdict(claim, value, standard_error=0.02) == expected


def test_an_interval_that_covers_the_whole_region_of_similarity_is_not_settled():
    assert verdict(SIMILAR, 1.0, standard_error=1.0) == "not settled"


@given(st.floats(-3, 3), st.floats(0.01, 2), st.integers(3, 40))
def test_the_rule_is_the_one_of_the_95_percent_interval(value, standard_error, dof):
    low, high = Estimate(value, standard_error, dof, 8).interval()
    expected = "holds" if low > 0.5 else "does not hold" if high < 0.5 else "not settled"
    assert verdict(ABOVE, value, standard_error, dof) == expected
    inside = low > 0.9 and high < 1.1
    outside = high < 0.9 or low > 1.1
    expected = "holds" if inside else "does not hold" if outside else "not settled"
    assert verdict(SIMILAR, value, standard_error, dof) == expected


def test_a_statistic_within_half_an_interval_of_its_threshold_is_not_settled():
    half = np.diff(Estimate(0, 0.1, 5, 6).interval())[0] / 2
    assert verdict(ABOVE, 0.5 + 0.99 * half, 0.1, dof=5) == "not settled"
    assert verdict(ABOVE, 0.5 + 1.01 * half, 0.1, dof=5) == "holds"


def test_too_few_replicates_or_people_are_not_settled_and_say_so():
    for replicates, people, reason in (
        (3, None, "3 replicates where 4 are needed"),
        (8, 4, "4 people where 5 are needed"),
    ):
        (finding,) = judge({ABOVE: Estimate(9.0, 0.01, 5, replicates, people)})
        assert finding.verdict == "not settled"
        assert finding.reason == reason
    assert verdict(ABOVE, 9.0, 0.01, dof=4, replicates=4, people=5) == "holds"


def test_a_single_replicate_has_no_interval_and_no_verdict():
    estimate = findings.over_replicates([0.7])
    (finding,) = judge({ABOVE: estimate})
    assert finding.verdict == "not settled"
    assert finding.row["number"] == "0.7 (no interval)"


def test_an_exact_statistic_is_decided_by_its_side():
    assert verdict(ABOVE, 0.6, 0.0) == "holds"
    assert verdict(ABOVE, 0.5, 0.0) == "not settled"


def test_holm_asks_the_first_of_two_claims_for_a_97_5_percent_interval_and_the_second_for_95():
    first, second = Claim("a", "above", 0.0), Claim("b", "above", 0.0)

    def verdicts(*z):
        found = judge({c: Estimate(x, 1.0, 1e9, 8) for c, x in zip((first, second), z, strict=True)})
        return [f.verdict for f in found], [round(f.level, 4) for f in found]

    z95, z975 = stats.norm.ppf(0.975), stats.norm.ppf(0.9875)
    assert verdicts(z975 + 0.01, z95 + 0.01) == (["holds"] * 2, [0.975, 0.95])
    assert verdicts(z975 + 0.01, z95 - 0.01) == (["holds", "not settled"], [0.975, 0.95])
    assert verdicts(z95 + 0.01, z975 - 0.01) == (["not settled"] * 2, [0.975, 0.975])
    assert verdicts(-z975 - 0.01, z95 + 0.01)[0] == ["does not hold", "holds"]


def test_holm_keeps_the_chance_of_any_wrong_verdict_below_five_percent(rng):
    claims = [Claim(str(k), "above", 0.0) for k in range(4)]
    wrong = 0
    for _ in range(400):
        values = rng.normal(size=(4, 6)).astype(float)  # every statistic at its threshold
        results = {c: findings.over_replicates(v) for c, v in zip(claims, values, strict=True)}
        wrong += any(f.verdict != "not settled" for f in judge(results))
    assert wrong <= stats.binom.ppf(0.999, 400, 0.05)


def test_replicate_interval_is_students():
    values = [0.1, 0.4, 0.3, 0.6]
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    np.testing.assert_allclose(findings.over_replicates(values).interval(), expected)


def test_crossed_variance_is_right_on_average_where_networks_and_people_both_vary(rng):
    replicates, people, draws = 8, 12, 4000
    sd_replicate, sd_person, sd_residual = 1.0, 0.7, 0.5
    values = (
        rng.normal(0, sd_replicate, (draws, replicates, 1))
        + rng.normal(0, sd_person, (draws, 1, people))
        + rng.normal(0, sd_residual, (draws, replicates, people))
    )
    truth = sd_replicate**2 / replicates + sd_person**2 / people + sd_residual**2 / replicates / people
    estimates = [findings.over_replicates_and_people(table) for table in values]
    variance = np.mean([e.standard_error**2 for e in estimates])
    assert variance == pytest.approx(truth, rel=0.05)
    covered = np.mean([e.interval()[0] < 0 < e.interval()[1] for e in estimates])
    assert 0.945 < covered < 0.985
    assert estimates[0].dof == 7


def test_crossed_variance_never_falls_below_either_of_its_parts(rng):
    table = rng.normal(size=(5, 6))  # no main effects: the difference of mean squares is often negative
    estimate = findings.over_replicates_and_people(table)
    parts = table.mean(1).var(ddof=1) / 5, table.mean(0).var(ddof=1) / 6
    assert estimate.standard_error**2 >= max(parts)


def test_jackknife_of_a_variance_over_people_is_unbiased_for_each_replicate(rng):
    table = rng.normal(size=(3, 9))  # (replicate, person)
    found = findings.jackknife_values(lambda people: people.var(0), table.T).T
    np.testing.assert_allclose(found.mean(1), table.var(1, ddof=1))
    assert findings.over_replicates_and_people(found).value == pytest.approx(table.var(1, ddof=1).mean())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("s", "bove", 0.0),
            "direction must be one of above, below, similar, not 'bove'; did you mean 'above'",
        ),
        (("s", "similar", 0.0), "margin must be a number above 0, not 0.0"),
        (("s", "similar", 0.9, None, True), "margin must be a number above 1, not 0.9"),
        (("s", "above", 0.9, 1.0), "target belongs to a claim that is 'similar', not 'above'"),
        (("s", "above", 0.9, None, False, "rad^-2"), "units must be one of 1, rad, rad-1, rad-2"),
    ],
)
def test_a_claim_that_cannot_be_meant_is_refused_in_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence.replace("^", r"\^")):
        Claim(*arguments)


def test_missing_replicates_are_refused_in_a_sentence():
    with pytest.raises(ValueError, match="1 of 3 are not finite"):
        findings.over_replicates([1.0, np.nan, 2.0])
    with pytest.raises(ValueError, match=r"must have the dimensions \(replicate, person\), not shape \(3,\)"):
        findings.over_replicates_and_people([1.0, 2.0, 3.0])


def test_masked_values_are_missing():
    masked = np.ma.array([1, 2, 3, 99], mask=[0, 0, 0, 1])
    for estimate in (findings.over_replicates, lambda values: findings.jackknife(np.mean, values)):
        with pytest.raises(ValueError, match="are not finite"):
            estimate(masked)
    with pytest.raises(ValueError, match="1 of 8 are not finite"):
        findings.over_replicates_and_people([masked, masked.data])
    assert findings.jackknife(np.mean, masked[:3]) == findings.jackknife(np.mean, [1, 2, 3])


def test_dimensions_go_by_name_and_where_they_have_other_names_by_position(rng):
    table = rng.normal(size=(4, 7))
    expected = findings.over_replicates_and_people(table)
    for dims in (("replicate", "person"), ("network", "who"), ("replicate", "who"), ("network", "person")):
        assert findings.over_replicates_and_people(xr.DataArray(table, dims=dims)) == expected
        turned = xr.DataArray(table.T, dims=dims[::-1])
        assert (findings.over_replicates_and_people(turned) == expected) == (dims != ("network", "who"))
    assert findings.agreement(xr.DataArray(table.T, dims=("place", "replicate"))) == findings.agreement(table)


def test_table_shows_the_whole_claim_with_its_rule_and_a_ratio_as_a_ratio():
    claim = Claim("a" * 90, "similar", 1.5, ratio=True)
    (finding,) = judge({claim: Estimate(0.0, 0.1, 1e9, 8, people=4)})
    shown = findings.table([finding])
    expected = ["1.00 [0.82, 1.22]", "–", "in [0.667, 1.5]", "8 networks, 4 people"]
    assert shown.data.iloc[0].tolist()[1:-2] == expected
    assert shown.data["earlier work"][0] == "our prediction"
    assert shown.data.verdict[0] == "not settled: 4 people where 5 are needed"
    assert "a" * 90 in shown.to_html()
    assert shown.to_html() == findings.table([finding]).to_html()
    assert str(finding) == "a" * 90 + ": not settled"


def test_claims_are_announced_with_what_decides_them_before_there_is_a_result():
    shown = findings.announce(Claim("F < G", "similar", 1.5, ratio=True), Claim("F grows", "above", 0.05))
    assert shown.data.to_numpy().tolist() == [["F < G", "in [0.667, 1.5]"], ["F grows", "> 0.05"]]
    assert "F &lt; G" in shown.to_html()


def test_agreement_of_curves_is_what_their_common_part_says():
    angles = np.linspace(-np.pi, np.pi, 64, endpoint=False)
    own = np.array([np.cos(k * angles) for k in range(2, 8)])
    plain = {r: ((r - 1) / (2 * r)) ** 0.5 for r in (5, 6)}  # of a common curve as large as each one's own
    found = findings.agreement(3 + np.sin(angles) + own)
    assert np.isclose(found.value, 6 * plain[6] - 5 * plain[5]) and abs(found.value - 0.5**0.5) < 0.005
    assert (found.replicates, found.dof) == (6, 5) and found.standard_error < 1e-6
    copies = findings.agreement(np.outer([1, 2, 3], np.sin(angles)))
    assert np.isclose(copies.value, 1)


def test_agreement_of_unrelated_curves_is_zero_and_its_interval_covers_that():
    rng = np.random.default_rng(0)
    found = [findings.agreement(rng.normal(size=(6, 30))) for _ in range(1000)]
    assert abs(np.mean([one.value for one in found])) < 0.02
    covered = np.mean([low < 0 < high for low, high in (one.interval() for one in found)])
    assert covered > 0.9


def test_a_row_holds_what_a_table_or_a_file_needs():
    claim = Claim("F grows", "below", 0.5, units="rad-2")
    (finding,) = judge({claim: Estimate(-0.2, 0.031, 1e9, 8)})
    row = finding.row
    assert row["number"] == "−0.200 [−0.261, −0.139] rad⁻²"
    assert (row["rule"], row["verdict"], row["over"]) == ("< 0.5", "holds", "8 networks")
    assert json.loads(json.dumps(row))["thresholds"] == [0.5]


@pytest.mark.parametrize(
    ("shown", "number"),
    [
        ((1.00002, 0.99954, 1.00049), "1.0000 [0.9995, 1.0005]"),
        ((256.2, 225.1, 287.4), "256 [225, 287]"),
        ((2.5e-7, 1e-7, 4e-7), "2.5e−07 [1e−07, 4e−07]"),
        ((0.0, 0.0, 0.0), "0.0 [0.0, 0.0]"),
    ],
)
def test_a_number_is_rounded_to_what_its_interval_says(shown, number):
    assert texts.interval(*shown) == number


def glued(monkeypatch):
    import myst_nb

    found = {}
    monkeypatch.setattr(myst_nb, "glue", lambda name, value, display: found.update({name: value}))
    return found


def test_what_is_told_is_a_value_with_its_interval_in_one_form(monkeypatch):
    found = glued(monkeypatch)
    rows = xr.DataArray([[1.0, 1.2, 1.1], [2.0, 2.2, 2.4]], {"split": ["train", "test"], "replicate": [0, 1, 2]})
    findings.tell(alpha=rows, steps=700, share=0.12345, who="people", level={"low": Estimate(0.5, 0.1, 1e9, 5)})
    assert found["alpha_train"] == "1.10 [0.85, 1.35]"
    assert (found["steps"], found["share"], found["who"]) == ("700", "0.12", "people")
    assert found["level_low"] == "0.50 [0.30, 0.70]"
    findings.tell(np.exp, ratio=Estimate(0.0, 0.1, 1e9, 5))
    assert found["ratio"] == "1.00 [0.82, 1.22]"


def test_each_estimates_every_combination_and_is_told_alike(monkeypatch):
    found = glued(monkeypatch)
    rows = xr.DataArray(np.random.default_rng(0).normal(size=(2, 6)), {"loss": ["a", "b"], "replicate": range(6)})
    ends = findings.each(findings.over_replicates, rows, over=["loss"])
    alone = findings.over_replicates(rows.sel(loss="b"))
    assert np.allclose(ends.sel(loss="b"), [alone.interval()[0], alone.value, alone.interval()[1]])
    findings.tell(by_table=ends, by_array=rows)
    assert found["by_table_b"] == found["by_array_b"]


def test_the_jackknife_is_the_same_on_labelled_and_on_plain_arrays():
    rows = np.random.default_rng(0).normal(size=(7, 4))
    labelled = xr.DataArray(rows, {"replicate": range(7), "angle": range(4)})
    one = findings.jackknife(lambda a: np.log((a**2).mean()), rows)
    other = findings.jackknife(lambda a: np.log((a**2).mean()), labelled)
    assert np.allclose([one.value, one.standard_error], [other.value, other.standard_error])
    curves = findings.jackknife_values(lambda a: a.mean("replicate"), labelled)
    assert np.allclose(curves, labelled) and curves.dims == ("replicate", "angle")


def test_labelled_arrays_are_matched_by_their_labels(rng):
    one, other = (xr.DataArray(rng.normal(size=(2, 6)), {"loss": ["a", "b"], "replicate": range(6)}) for _ in range(2))
    turned, unlike = other[::-1, ::-1], other.assign_coords(loss=["a", "c"], replicate=range(1, 7))

    def slope(x, y):
        return float((x.values * y.values).sum() / (x.values**2).sum())

    def slopes(x, y):
        return findings.each(lambda *of: findings.jackknife(slope, *of), x, y, over=["loss"])

    xr.testing.assert_identical(slopes(one, turned), slopes(one, other))
    xr.testing.assert_allclose(slopes(turned, one).sel(loss="b"), slopes(other, one).sel(loss="b"))
    matched = findings.jackknife_values(slope, one, turned[::-1])
    np.testing.assert_allclose(matched, findings.jackknife_values(slope, one, other))
    for call in (slopes, lambda *of: findings.jackknife(slope, *of)):
        with pytest.raises(ValueError, match=r"must have the same labels along \w+, each once, unlike array 2"):
            call(one, unlike)


def test_arrays_without_labels_go_by_position(rng):
    one, other = (xr.DataArray(rng.normal(size=(6, 3)), dims=("replicate", "angle")) for _ in range(2))
    labelled = other.assign_coords(replicate=range(6)[::-1])

    def product(x, y):
        return float((np.asarray(x) * np.asarray(y)).sum())

    expected = findings.jackknife(product, one.values, other.values)
    assert findings.jackknife(product, one, labelled) == findings.jackknife(product, one.values, labelled) == expected
    np.testing.assert_allclose(findings.jackknife_values(lambda x: x.mean("replicate"), one), one)
    for call in (
        lambda a: findings.each(np.mean, a, over=["loss"]),
        lambda a: findings.jackknife(np.mean, a, over="loss"),
    ):
        with pytest.raises(ValueError, match="labels of loss must be a whole number of at least 1, not 0"):
            call(one)
    with pytest.raises(ValueError, match="array 1 has 3, array 2 has 2"):
        findings.each(lambda x, y: findings.over_replicates(x), one, other[:, :2], over=["angle"])


def test_decide_prints_the_verdicts_and_shows_a_second_estimator_beside_the_first(monkeypatch, capsys):
    found, shown = glued(monkeypatch), []
    monkeypatch.setattr("IPython.display.display", shown.append)
    claim = Claim("F grows", "above", 0.5)
    (one,) = findings.decide({claim: Estimate(2.0, 0.1, 1e9, 8)}, second={claim: Estimate(1.0, 0.1, 1e9, 8)})
    assert one.verdict == "holds"
    assert capsys.readouterr().out == "F grows: holds\n"
    assert shown[0].data["second estimator"].tolist() == ["1.00 [0.80, 1.20]"]
    assert json.loads(found["findings"])[0]["verdict"] == "holds"


def test_a_relation_follows_the_verdict():
    claim = Claim("F grows", "above", 0.5, relation=("confirmed", "contradicted"))
    relations = [judge({claim: Estimate(value, 0.1, 1e9, 8)})[0].relation for value in (2.0, -2.0, 0.5)]
    assert relations == ["confirmed", "contradicted", "not settled"]
    assert judge({Claim("F grows", "above", 0.5, relation="theory"): Estimate(2.0, 0.1, 1e9, 8)})[0].relation == ""
    with pytest.raises(ValueError, match="relation must be two of confirmed, corrected, contradicted"):
        Claim("F grows", "above", 0.5, relation=("confirmed", "wrong"))
    with pytest.raises(ValueError, match="relation"):
        Claim("F grows", "above", 0.5, relation="a guess")


def test_what_is_not_settled_says_which_direction_is_certain_and_how_many_networks_would_settle_it():
    claim = Claim("F grows", "above", 1.5, ratio=True)
    (near,) = judge({claim: Estimate(np.log(1.6), 0.05, 7, 8)})
    assert near.verdict == "not settled" and near.certain
    assert f"direction certain, size against the margin not settled; about {near.settles} networks" in near.reason
    for count, verdict in ((near.settles, "holds"), (near.settles - 5, "not settled")):
        more = Estimate(np.log(1.6), 0.05 * np.sqrt(8 / count), count - 1, count)
        assert judge({claim: more})[0].verdict == verdict
    (unknown,) = judge({claim: Estimate(0.01, 0.3, 7, 8)})
    assert unknown.verdict == "not settled" and not unknown.certain and "direction" not in unknown.reason
    (edge,) = judge({claim: Estimate(np.log(1.5), 0.3, 7, 8)})
    assert edge.settles is None and "no 10000 networks would settle it" in edge.reason
    (few,) = judge({claim: Estimate(3.0, 0.1, 2, 3)})
    assert not few.certain and few.reason == "3 replicates where 4 are needed"


SETTLED = ("It is {number}.", "It is {number}, {more} than none.", "Whether it is {value} stays open.")


def answered(monkeypatch, value, **options):
    found = glued(monkeypatch)
    claim = Claim("F grows", "above", 0.5, relation=("confirmed", "contradicted"))
    heading = {claim: ("F grows", "F does not grow")}
    verdicts = judge({claim: Estimate(value, 0.1, 1e9, 8)})
    findings.answer(verdicts, "It grew.", {claim: SETTLED}, title=heading, observation=3, **options)
    return found["answer"].data, json.loads(found["answered"])


@pytest.mark.parametrize(
    ("value", "said", "title", "relation"),
    [
        (2.0, "It is 2.00 [1.80, 2.20].", "F grows", "confirmed"),
        (-2.0, "It is −2.00 [−2.20, −1.80], less than none.", "F does not grow", "contradicted"),
        (0.5, "Whether it is 0.50 stays open.", "", "not settled"),
    ],
)
def test_an_answer_follows_the_numbers(monkeypatch, value, said, title, relation):
    text, row = answered(monkeypatch, value)
    assert said in text and f">{relation}</span>" in text and "over 8 networks" in text
    assert (row["find"], row["title"], row["relation"], row["observation"]) == (said, title, relation, 3)


@pytest.mark.parametrize(("other", "relation"), [(2.0, "confirmed"), (-2.0, "corrected"), (0.5, "confirmed")])
def test_an_answer_whose_settled_claims_disagree_about_what_was_seen_corrects_it(monkeypatch, other, relation):
    found = glued(monkeypatch)
    first, second = (
        Claim(sentence, "above", 0.5, relation=("confirmed", "contradicted")) for sentence in ("F grows", "it spreads")
    )
    verdicts = judge({first: Estimate(2.0, 0.1, 1e9, 8), second: Estimate(other, 0.1, 1e9, 8)})
    findings.answer(verdicts, "It grew and spread.", {first: SETTLED, second: SETTLED})
    assert json.loads(found["answered"])["relation"] == relation


def test_an_answer_is_short(monkeypatch):
    with pytest.raises(ValueError, match="at most 90 words"):
        answered(monkeypatch, 2.0, why="word " * 90)


def test_all_numbers_are_one_folded_table_and_inert(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    findings.numbers(**{"a < b": Estimate(0.5, 0.1, 1e9, 5), "steps": 700})
    assert "<td>a &lt; b</td><td>0.50 [0.30, 0.70]</td>" in shown[0].data and "<td>700</td>" in shown[0].data
