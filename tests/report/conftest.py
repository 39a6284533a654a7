"""Sweeps without Optuna's figures: they take half of a stub's sweep, and no report has them."""

import pytest

from hemaml import conclude


@pytest.fixture(autouse=True)
def _no_optuna_figures(monkeypatch):
    monkeypatch.setattr(conclude, "study_figures", lambda study, plan: [])
