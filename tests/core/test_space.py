"""Search spaces: Optuna samples what the file says, and faults are told with their path."""

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemaml.core.documents import parse_yaml, validated
from hemaml.core.errors import ConfigError
from hemaml.core.space import Space, load_space

YAML = """
lr: {type: float, low: 1e-4, high: 1e-1, log: true}
conv: {type: categorical, choices: [gin, gat, null, 3]}
heads: {type: int, low: 1, high: 8, when: {conv: gat}}
drop: {type: float, low: 0, high: 0.5, step: 0.25, when: {conv: [gin, gat]}}
"""


def space_of(text):
    return validated(Space, parse_yaml(text, "space.yaml"), "space.yaml")


def test_optuna_draws_from_the_ranges_and_conditions_of_the_file():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = space_of(YAML)
    seen = set()
    for _ in range(200):
        point = space.suggest(study.ask())
        seen.add(point["conv"])
        assert 1e-4 <= point["lr"] <= 1e-1  # YAML reads 1e-4 as text
        assert ("heads" in point) == (point["conv"] == "gat")
        assert ("drop" in point) == (point["conv"] in ("gin", "gat"))
        assert point.get("drop", 0) in (0, 0.25, 0.5)
    assert seen == {"gin", "gat", None, 3}


def test_corners_visit_every_end_where_its_condition_holds():
    corners = list(space_of(YAML).corners())
    for name, ends in {"lr": {1e-4, 1e-1}, "heads": {1, 8}, "drop": {0, 0.5},
                       "conv": {"gin", "gat", None, 3}}.items():  # fmt: skip
        assert {corner[name] for corner in corners if name in corner} >= ends
    assert all(corner["conv"] == "gat" for corner in corners if "heads" in corner)


def test_the_grid_has_each_distinct_point_once():
    points = space_of(
        "conv: {type: categorical, choices: [gin, gat]}\n"
        "heads: {type: int, low: 1, high: 5, step: 2, when: {conv: gat}}\n"
    ).grid()
    expected = [{"conv": "gin"}] + [{"conv": "gat", "heads": heads} for heads in (1, 3, 5)]
    assert sorted(map(repr, points)) == sorted(map(repr, expected))


@given(st.integers(-50, 50), st.integers(0, 40), st.integers(1, 7))
def test_integer_grids_are_what_optuna_can_draw(low, span, step):
    text = f"n: {{type: int, low: {low}, high: {low + span}, step: {step}}}"
    values = [point["n"] for point in space_of(text).grid()]
    assert sorted(values) == list(range(low, low + span + 1, step))


@settings(max_examples=50)
@given(st.floats(-1e3, 1e3), st.integers(0, 30), st.sampled_from([0.1, 0.25, 0.3, 1.0]))
def test_float_grids_include_both_ends(low, count, step):
    high = low + count * step
    space = Space.model_validate({"x": {"type": "float", "low": low, "high": high, "step": step}})
    values = sorted(point["x"] for point in space.grid())
    assert len(values) == count + 1
    assert values[0] == low and values[-1] == pytest.approx(high)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x: {type: float, low: 3, high: 1}", r"`low <= high` must hold, but got low=3.0, high=1"),
        ("x: {type: float, low: 0, high: 1, log: true}", r"`low > 0` must hold with `log: true`"),
        ("x: {type: int, low: 1, high: 9, log: true, step: 2}", "exclude each other"),
        ("x: {type: float, low: 0, high: 1, step: 0}", "`step > 0` must hold"),
        ("x: {type: float, low: nan, high: 1}", "finite number"),
        ("x: {type: flaot, low: 0, high: 1}", "space.yaml.x: .*'float'"),
        ("x: {type: float, low: 0, high: 1, lgo: true}", "space.yaml.x.float.*lgo"),
        ("x: {low: 0, high: 1}", "space.yaml.x"),
        ("x: {type: categorical, choices: []}", "at least 1 item"),
        ("x: {type: categorical, choices: [a, a]}", "must differ"),
        ("x: {type: float, low: 0, high: 1, when: {y: 1}}", "must name a parameter that stands"),
        ("{}", "at least one parameter"),
        ("x: {type: float, low: 0, high: 1}\nx: {type: int, low: 0, high: 1}", "'x' stands twice"),
        ("x: [", "must be YAML"),
        ("[1, 2]", "must be a mapping"),
    ],
)
def test_faults_are_told_with_rule_value_and_place(text, told):
    with pytest.raises(ConfigError, match=told):
        space_of(text)


def test_the_digest_is_that_of_the_ranges():
    one = space_of("x: {type: float, low: 0, high: 1}")
    same = space_of("x: {high: 1.0, low: 0.0, type: float, log: false}")
    other = space_of("x: {type: float, low: 0, high: 2}")
    assert one.digest == same.digest != other.digest


def test_an_unknown_space_lists_the_known_ones(tmp_path):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "smgnn.yaml").write_text("x: {type: int, low: 0, high: 1}")
    with pytest.raises(ConfigError, match="known: task/smgnn.yaml"):
        load_space(tmp_path / "task" / "smgn.yaml")


@pytest.mark.parametrize(
    ("point", "told"),
    [
        ({"lr": 1}, "'lr' must lie between 0.0001 and 0.1, but got 1"),
        ({"lr": True}, "'lr' must lie between"),
        ({"conv": "sage"}, "'conv' must be one of"),
        ({"conv": 3.0}, "'conv' must be one of"),
        ({"heads": 9}, "'heads' must be a whole number from 1 to 8"),
        ({"heads": 2.5}, "'heads' must be a whole number"),
        ({"head": 2}, "unknown searched parameter 'head'; known: heads"),
    ],
)
def test_points_given_by_hand_lie_in_the_space(point, told):
    with pytest.raises(ConfigError, match=told):
        space_of(YAML).coerce(point)


def test_points_given_by_hand_become_what_a_sampler_gives():
    point = space_of(YAML).coerce({"lr": "1e-2", "conv": None, "heads": 8})
    assert point == {"lr": 0.01, "conv": None, "heads": 8} and type(point["lr"]) is float
