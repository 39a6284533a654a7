"""Peer a: the sweep as the official Optuna + MLflow example would have it, with these trials.

Source: MLflow's guide "Hyperparameter tuning with MLflow and Optuna": a parent run, a nested run a
trial, `log_params`, `log_metric`, `log_model` with everything else left at its default.
"""

import mlflow
import optuna
from peers.network import fit, slic_of
from peers.workload import GRID, fold, params, point_name, seed


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
            for step, scores, network in fit(params(point), data, seed(point), slic_of):  # noqa: B007
                for name, value in scores.items():
                    mlflow.log_metric(name, value, step=step)
                best = max(best, scores["dice"])
            mlflow.log_metric("best_dice", best)
            mlflow.pytorch.log_model(network, name="model", serialization_format="pickle")
        return best

    with mlflow.start_run(run_name="sweep"):
        study = optuna.create_study(
            study_name="sweep",
            storage="sqlite:///optuna.db",
            direction="maximize",
            sampler=optuna.samplers.GridSampler(GRID, seed=0),
        )
        study.optimize(objective)
        mlflow.log_params(study.best_params)
        mlflow.log_metric("best_dice", study.best_value)
    return {point_name(trial.params): trial.value for trial in study.trials}
