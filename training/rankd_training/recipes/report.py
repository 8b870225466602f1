"""A run's metrics as a table for people."""

from __future__ import annotations

from rich.table import Table

from rankd_training.recipes.ctr import RunResult

__all__ = ["render_metrics"]


def render_metrics(result: RunResult) -> Table:
    """One row a split and task. AUC: higher is better, 0.5 is chance; log loss and ECE: lower is better.

    Where no row has a user, there is no column of AUCs within users.
    """
    of_users = any(found.user_auc is not None for by in result.metrics.values() for found in by.values())
    title = f"{result.record.model}, best epoch {result.record.best_epoch}"
    table = Table(title=title, title_justify="left", box=None)
    for column in ("split", "task"):
        table.add_column(column, overflow="fold")
    for column in ("rows", "positives", "AUC", *["AUC per user"] * of_users, "log loss", "ECE"):
        table.add_column(column, justify="right", no_wrap=True)
    for split, by_task in result.metrics.items():
        for task, found in by_task.items():
            table.add_row(
                split,
                task,
                f"{found.rows:,}",
                f"{round(found.base_rate * found.rows):,} ({100 * found.base_rate:.3g}%)",
                _auc(found.auc),
                *[_auc(found.user_auc)] * of_users,
                f"{found.log_loss:.4f}",
                f"{found.calibration_error:.4f}",
            )
    return table


def _auc(value: float | None) -> str:
    return "one class" if value is None else f"{value:.4f}"
