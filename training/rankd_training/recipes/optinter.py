"""OptInter in two stages: search what each pair of fields should do, then train with that from scratch.

The search is a run of its own, in OUTPUT-search. The second run's folder holds what was chosen, `pairs.yaml`,
and the schema with the surely memorised pairs as crosses, `schema-with-crosses.yaml`, for any model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rankd_training.errors import RunError, SettingError
from rankd_training.layers.pairs import MEMORISE
from rankd_training.learning.ranks import Ranks, joined
from rankd_training.models.optinter import OptInter
from rankd_training.progress import SILENT, Progress
from rankd_training.recipes import ctr
from rankd_training.recipes.chosen_pairs import leave_choice
from rankd_training.recipes.ctr import RunResult
from rankd_training.runs import checkpoint
from rankd_training.runs.run_folder import check_free
from rankd_training.runs.unfinished import Unfinished
from rankd_training.settings import TrainSettings

__all__ = ["resume", "search_and_train", "search_folder", "searches"]

NAME, MOST_SHOWN = "optinter", 8


def searches(settings: TrainSettings) -> bool:
    """Whether these settings leave the methods to a search."""
    return settings.model == NAME and settings.model_config.get("methods") is None


def search_folder(output: Path) -> Path:
    """Where the search lies whose choice the run in `output` was trained with."""
    return output.with_name(output.name + "-search")


def search_and_train(
    settings: TrainSettings, *, progress: Progress = SILENT, say: Callable[[str], None] | None = None
) -> tuple[RunResult, RunResult]:
    """Search, then train with what was chosen -> both runs, the search in OUTPUT-search.

    The test part is judged at the end of both; what is chosen depends on training and validation rows only.

    Args:
        settings: of the second run; the first differs in its folder and in having no methods.
        progress: told of both runs.
        say: told in a line what begins.

    Raises:
        SettingError: the model is another, or the methods are given already.
        TrainingError: as from `ctr.train`.
    """
    if not searches(settings):
        raise SettingError("expected model optinter without methods, which the search is to find")
    check_free(settings.output)
    search = search_folder(settings.output)
    with joined() as ranks:  # the runs join nobody anew: that a group of processes can do once
        say = say if say and ranks.first else _nothing
        say(f"first the search, in {search}")
        found = ctr.train(replace(settings, output=search), progress=progress)
        return found, _train_chosen(settings, ranks, progress, say)


def resume(
    output: Path, *, progress: Progress = SILENT, say: Callable[[str], None] | None = None
) -> RunResult:
    """Go on with any run to `output` that was killed, also while it searched -> as if it had not been.

    Raises:
        RunError: there is no such run, its state cannot be read, or its examples have changed since.
        TrainingError: as from `ctr.resume`.
    """
    search = search_folder(output)
    begun = Unfinished(search)
    with joined() as ranks:
        say = say if say and ranks.first else _nothing
        if begun.folder.exists() and searches(begun.settings()):
            settings = replace(begun.settings(), output=output.absolute())
            ranks.meet()  # the folder goes when the search is done
            say(f"on with the search, in {search}")
            ctr.resume(search, progress=progress)
            return _train_chosen(settings, ranks, progress, say)
        done = (search / checkpoint.MODEL).is_file()
        if done and not output.exists() and not Unfinished(output).folder.exists():
            methods = json.dumps(list(_searched(search).chosen()))
            raise RunError(
                output,
                f"was not begun, but the search before it is done, in {search}; "
                f"train with what it chose: --set 'model.methods={methods}'",
            )
        result = ctr.resume(output, progress=progress)
        if done and result.record.model == NAME:
            _leave(result, _searched(search), ranks)
        return result


def _train_chosen(
    settings: TrainSettings, ranks: Ranks, progress: Progress, say: Callable[[str], None]
) -> RunResult:
    ranks.meet()  # the first process has written the search by now
    searched = _searched(search_folder(settings.output))
    chosen = searched.chosen()
    say(f"then training with what it chose: {_summary(searched)}")
    config = {**settings.model_config, "methods": list(chosen)}
    result = ctr.train(replace(settings, model_config=config), progress=progress)
    _leave(result, searched, ranks)
    return result


def _summary(searched: OptInter) -> str:
    methods = dict(text.rsplit("=", 1) for text in searched.chosen())
    memorised = [pair for pair, method in methods.items() if method == MEMORISE]
    shown = ", ".join([*memorised[:MOST_SHOWN], *["..."] * (len(memorised) > MOST_SHOWN)])
    names = f" ({shown})" if memorised else ""
    left_out = len(searched.shares()) - len(methods)
    return (
        f"{len(memorised)} pairs memorised{names}, {len(methods) - len(memorised)} factorised, "
        f"{left_out} left out"
    )


def _searched(folder: Path) -> OptInter:
    model = checkpoint.load(folder)
    assert isinstance(model, OptInter)
    return model


def _leave(result: RunResult, searched: OptInter, ranks: Ranks) -> None:
    """Write the choice into a run that was trained with it, not with methods given by hand."""
    methods = result.record.settings["model_config"].get("methods")
    if ranks.first and methods == list(searched.chosen()):
        leave_choice(result.folder, searched)


def _nothing(_: str) -> None:
    """Say nothing."""
