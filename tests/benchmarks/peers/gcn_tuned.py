"""Peer b: embeds once, and gives the requirements of its models; else as peer a."""

from importlib.metadata import version

import mlflow
import optuna
import torch
from peers.gcn_network import embedded, fit
from peers.gcn_workload import GRID, fold

REQUIREMENTS = [f"{name}=={version(name)}" for name in ("mlflow", "torch", "torch-geometric")]


def sweep() -> dict[str, float]:
    """Runs the sweep in the working folder; returns the value of each point."""
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("leukemia")
    data = fold()
    x = torch.cat([embedded(data.train), embedded(data.val)]).clone()

    def objective(trial: optuna.Trial) -> float:
        point = {name: trial.suggest_categorical(name, choices) for name, choices in GRID.items()}
        with mlflow.start_run(run_name=f"trial-{trial.number}", nested=True):
            mlflow.log_params(point)
            best = 0.0
            for epoch, scores, network in fit(point, x, data.train, data.val):  # noqa: B007
                for name, value in scores.items():
                    mlflow.log_metric(name, value, step=epoch)
                best = max(best, scores["auc"])
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
            storage="sqlite:///optuna.db",
            direction="maximize",
            sampler=optuna.samplers.GridSampler(GRID, seed=0),
        )
        study.optimize(objective)
    return {str(sorted(trial.params.items())): trial.value for trial in study.trials}
