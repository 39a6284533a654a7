"""Figures of a search as PNG that the UI previews, from Optuna's own plots; `report` has more."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.trial import TrialState

from hemaml.core.experiment import Plan
from hemaml.core.search import Study
from hemaml.engines.importance import evaluator
from hemaml.engines.optuna_study import open_storage, own_trials
from hemaml.engines.outages import awaited
from hemaml.explain import Picture

FEWEST = 2
"""Finished trials below which a figure says nothing."""
WITHOUT_PARAMETERS = ("history", "learning_curves")
DRAWN = (TrialState.COMPLETE, TrialState.PRUNED)


def study_figures(study: Study, plan: Plan) -> list[Picture]:
    """History, importance, parallel coordinates, learning curves; a Pareto front for two goals."""
    import matplotlib as mpl

    mpl.use("Agg")
    opened = awaited(study.storage, lambda: _in_memory(study))
    done = opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < FEWEST:
        return []
    figures = _figures(opened, [goal.metric for goal in plan.goals], len(done))
    if plan.experiment.sweep.is_population:  # values that a trial began with explain nothing
        figures = [figure for figure in figures if figure[0] in WITHOUT_PARAMETERS]
    return [_draw(name, plot, options) for name, plot, options in figures]


def _in_memory(study: Study) -> optuna.Study:
    """A copy that no outage reaches while it is drawn."""
    stored = optuna.load_study(study_name=study.name, storage=open_storage(study.storage))
    copy = optuna.create_study(directions=stored.directions)
    copy.add_trials(own_trials(stored, *DRAWN))
    return copy


Plot = Callable[..., Any]


def _figures(
    study: optuna.Study, names: list[str], num_done: int
) -> list[tuple[str, Plot, dict[str, Any]]]:
    from optuna.visualization import matplotlib as png

    first = _targeted(study, names)
    figures: list[tuple[str, Plot, dict[str, Any]]] = [
        ("history", png.plot_optimization_history, first),
        ("parallel_coordinates", png.plot_parallel_coordinate, first),
        ("slices", png.plot_slice, first),
    ]
    if _varies(study):
        options = _for_importance(study, names) | {"evaluator": evaluator(num_done)}
        figures.append(("importance", png.plot_param_importances, options))
    if len(names) == 1:
        figures.append(("learning_curves", png.plot_intermediate_values, {"study": study}))
    elif len(names) in (2, 3):
        options = {"study": study, "target_names": names}
        figures.append(("pareto", png.plot_pareto_front, options))
    return figures


def _targeted(study: optuna.Study, names: list[str]) -> dict[str, Any]:
    """The arguments that make a plot show the first goal."""
    target = None if len(names) == 1 else (lambda trial: trial.values[0])
    return {"study": study, "target": target, "target_name": names[0]}


def _for_importance(study: optuna.Study, names: list[str]) -> dict[str, Any]:
    """The same for importance, where PED-ANOVA takes a low target for the better one."""
    if len(names) == 1:
        return {"study": study}
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    return {"study": study, "target": lambda t: sign * t.values[0], "target_name": names[0]}


def _varies(study: optuna.Study) -> bool:
    """Whether there is a difference to explain: importance is undefined where all score alike."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return len({trial.values[0] for trial in done}) > 1


def _draw(name: str, plot: Plot, options: dict[str, Any]) -> Picture:
    with warnings.catch_warnings():
        # Optuna's matplotlib plots are marked experimental, and PED-ANOVA reminds of its sign.
        warnings.simplefilter("ignore")
        return Picture(name, png=_png(plot, options, grid=name != "parallel_coordinates"))


def _png(plot: Callable[..., Any], options: dict[str, Any], *, grid: bool) -> bytes:
    """Optuna's matplotlib plot in plain style; it sets a style for the whole process otherwise."""
    from matplotlib import pyplot, rc_context
    from matplotlib.ticker import NullFormatter

    with rc_context():
        drawn = plot(**options)
        canvas = drawn.figure if hasattr(drawn, "figure") else pyplot.gcf()
        for axes in canvas.axes:
            axes.set_facecolor("white")
            axes.grid(False)
            if grid:
                axes.grid(True, color="#e4e4e4")
            axes.set_axisbelow(True)
            axes.xaxis.set_minor_formatter(NullFormatter())  # labels of a log axis collide
        canvas.set_size_inches(9, 5)
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="png", dpi=120, bbox_inches="tight")
        pyplot.close("all")
    return buffer.getvalue()
