"""The doctor tells of a broken store what it can, and goes on with the rest."""

from hemaml.doctor import examine


def states():
    return {finding.what: finding.state for finding in examine()}


def test_a_sound_workplace(workplace):
    found = states()
    assert found["data"] == "note"  # no real data is no fault
    assert {state for what, state in found.items() if what != "data"} == {"ok"}


def test_broken_stores_are_named_one_by_one(workplace):
    (workplace / "mlruns").mkdir(exist_ok=True)
    (workplace / "mlruns" / "mlflow.db").write_text("a letter to somebody else, long enough")
    (workplace / "mlruns" / "optuna.journal").write_text("not JSON\n{}\n")
    found = states()
    assert [what for what, state in found.items() if state == "wrong"] == [
        "tracking store", "study storage",
    ]  # fmt: skip
    assert found["cache"] == found["device"] == "ok"
