"""Peer b: the same sweep by somebody who has measured MLflow.

Metrics go in one batch a step, requirements are given instead of inferred, and Optuna keeps its
study in a journal. Superpixels are still made in each trial, and each trial's model is logged.
"""

from importlib.metadata import version

import mlflow
import optuna
from optuna.storages.journal import JournalFileBackend
from peers.network import fit, snic_of
from peers.workload import GRID, fold, params, point_name, seed

REQUIREMENTS = [f"{name}=={version(name)}" for name in ("hemaml", "mlflow", "numpy", "torch")]


def sweep() -> dict[str, float]:
    """Runs the sweep in the working folder; returns the value of each point."""
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("wbc_segmentation")
    data = fold()

    def objective(trial: optuna.Trial) -> float:
        point = {name: trial.suggest_categorical(name, choices) for name, choices in GRID.items()}
        with mlflow.start_run(run_name=f"trial-{trial.number}", nested=True):
            mlflow.log_params(point)
            best = 0.0
            for step, scores, network in fit(params(point), data, seed(point), snic_of):  # noqa: B007
                mlflow.log_metrics(scores, step=step)
                best = max(best, scores["dice"])
            mlflow.log_metric("best_dice", best)
            mlflow.pytorch.log_model(
                network,
                name="model",
                serialization_format="pickle",
                pip_requirements=REQUIREMENTS,
            )
        return best

    with mlflow.start_run(run_name="sweep"):
        study = optuna.create_study(
            study_name="sweep",
            storage=optuna.storages.JournalStorage(JournalFileBackend("optuna.journal")),
            direction="maximize",
            sampler=optuna.samplers.GridSampler(GRID, seed=0),
        )
        study.optimize(objective)
        mlflow.log_params(study.best_params)
        mlflow.log_metric("best_dice", study.best_value)
    return {point_name(trial.params): trial.value for trial in study.trials}
