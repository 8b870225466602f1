"""The same recipe on an existing Ray cluster: one worker a process, joined over gloo, as under `torchrun`.

Workers read the examples and write the run where the driver's paths say, so those must lie on storage that
every node has mounted, with rankd installed on each. Needs Ray (training/requirements-ray.txt).
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from rankd_training.errors import RunError
from rankd_training.recipes import ctr
from rankd_training.runs.run_folder import check_free, read
from rankd_training.settings import TrainSettings

__all__ = ["train_on_ray"]


def train_on_ray(settings: TrainSettings, *, workers: int) -> ctr.RunResult:
    """Train with some workers of the cluster that RAY_ADDRESS names, or that this machine is part of.

    Raises:
        RunError: the output folder is in use, there is no cluster, or training failed on it; says how.
        TrainingError: as `recipes.ctr.train`, from this side's checks.
    """
    check_free(settings.output)
    places = {name: getattr(settings, name).absolute() for name in ("examples", "schema", "output")}
    settings = replace(settings, **places)
    # Ray keeps its own records of a training; ours are the run's folder.
    records = settings.output.with_name(f".{settings.output.name}.ray")
    try:
        if not ray.is_initialized():
            ray.init(address="auto", log_to_driver=False)
        TorchTrainer(
            _work,
            train_loop_config={"settings": settings},
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=workers, resources_per_worker={"CPU": settings.threads}),
            run_config=RunConfig(name=settings.output.name, storage_path=str(records)),
        ).fit()
    except ConnectionError as error:
        problem = "no Ray cluster found; set RAY_ADDRESS, or start one with `ray start --head`"
        raise RunError(settings.output, problem) from error
    except ray.train.TrainingFailedError as error:
        raise RunError(settings.output, f"training on Ray failed: {error}") from error
    finally:
        shutil.rmtree(records, ignore_errors=True)
    record, metrics = read(settings.output)
    return ctr.RunResult(settings.output, record, metrics)


def _work(config: dict[str, TrainSettings]) -> None:
    ctr.train(config["settings"])
