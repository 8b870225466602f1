"""OptInter in two stages: search what each pair of fields should do, then train with that from scratch."""

from __future__ import annotations

from dataclasses import replace

from rankd_training.errors import SettingError
from rankd_training.models.optinter import OptInter
from rankd_training.progress import SILENT, Progress
from rankd_training.recipes.ctr import RunResult, train
from rankd_training.runs import checkpoint
from rankd_training.settings import TrainSettings

__all__ = ["search_and_train"]


def search_and_train(settings: TrainSettings, *, progress: Progress = SILENT) -> tuple[RunResult, RunResult]:
    """Search, then train with what was chosen -> both runs, the search in OUTPUT-search.

    The test part is judged at the end of both; what is chosen depends on training and validation rows only.

    Args:
        settings: of the second run; the first differs in its folder and in having no methods.
        progress: told of both runs.

    Raises:
        SettingError: the model is another, or the methods are given already.
        TrainingError: as from `train`.
    """
    if settings.model != "optinter" or settings.model_config.get("methods") is not None:
        raise SettingError("expected model optinter without methods, which the search is to find")
    beside = settings.output.with_name(settings.output.name + "-search")
    found = train(replace(settings, output=beside), progress=progress)
    searched = checkpoint.load(found.folder)
    assert isinstance(searched, OptInter)
    config = {**settings.model_config, "methods": list(searched.chosen())}
    return found, train(replace(settings, model_config=config), progress=progress)
