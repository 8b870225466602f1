"""The law y = a + b x^-c: fitted to runs of several sizes, with what the runs leave open.

For a given c the law is linear in a and b, so only c is searched: no start values, no local minimum of them.
Uncertainty comes from drawing the runs of each size anew.

Legend: V sizes, M runs of a size, B resamples, G points of a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from rankd_training.errors import SettingError

__all__ = ["Fit", "PowerLaw", "fit_law", "fit_runs"]

LOWEST_C, HIGHEST_C, GRID = 0.02, 6.0, 60
FEWEST_SIZES = 4
CURVE_POINTS = 60
AT_THE_EDGE = 1.02


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """y = a + b x^-c."""

    a: float
    b: float
    c: float

    def __call__(self, x: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the law's values."""
        return self.a + self.b * np.asarray(x, np.float64) ** -self.c


@dataclass(frozen=True, slots=True)
class Fit:
    """A law with the middle 95 % of its resamples.

    Attributes:
        law: fitted to the mean of each size.
        a: lowest and highest.
        b: lowest and highest.
        c: lowest and highest.
        explained: share of the variance of the sizes' means that the law explains.
        x: where the curve is given, evenly over magnitudes.
        y: the law there.
        low: lower edge of the band.
        high: upper edge.
        settled: whether the runs settle c at all: False where its interval reaches an end of the search, 0.02
            or 6, or where b may be 0.
    """

    law: PowerLaw
    a: tuple[float, float]
    b: tuple[float, float]
    c: tuple[float, float]
    explained: float
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    settled: bool


def fit_law(x_V: npt.NDArray[np.float64], y_V: npt.NDArray[np.float64]) -> PowerLaw:
    """Least squares over a, b and c.

    Raises:
        SettingError: there are fewer than four sizes, or one is not above 0.
    """
    if len(np.unique(x_V)) < FEWEST_SIZES or not (x_V > 0).all():
        raise SettingError(
            f"a law of three constants needs four sizes above 0 or more, got {sorted(set(x_V.tolist()))}"
        )
    # In units of the geometric mean, so that a, b and c disturb each other least.
    unit = float(np.exp(np.log(x_V).mean()))

    def residual(log_c: float) -> float:
        return _linear(x_V / unit, y_V, float(np.exp(log_c)))[2]

    grid = np.linspace(np.log(LOWEST_C), np.log(HIGHEST_C), GRID)
    best = int(np.argmin([residual(log_c) for log_c in grid]))
    around = grid[max(0, best - 1)], grid[min(GRID - 1, best + 1)]
    found = minimize_scalar(residual, bounds=around, method="bounded", options={"xatol": 1e-6})
    c = float(np.exp(found.x))
    a, b, _ = _linear(x_V / unit, y_V, c)
    return PowerLaw(a, b * unit**c, c)


def fit_runs(
    x_V: npt.NDArray[np.float64], y_VM: npt.NDArray[np.float64], *, resamples: int = 400, seed: int = 0
) -> Fit:
    """Fit the mean of each size's runs, and again for runs drawn anew.

    Args:
        x_V: sizes.
        y_VM: as many runs a size, such as one a seed; with one run there is no interval to speak of.
        resamples: B.
        seed: of the draws.

    Raises:
        SettingError: as `fit_law`.
    """
    mean_V = y_VM.mean(1)
    law = fit_law(x_V, mean_V)
    generator = np.random.default_rng(seed)
    num_sizes, num_runs = y_VM.shape
    laws = []
    for _ in range(resamples):
        drawn_VM = generator.integers(num_runs, size=(num_sizes, num_runs))
        laws.append(fit_law(x_V, np.take_along_axis(y_VM, drawn_VM, axis=1).mean(1)))
    x_G = np.geomspace(x_V.min(), x_V.max(), CURVE_POINTS)
    low_G, high_G = np.percentile([one(x_G) for one in laws], [2.5, 97.5], axis=0)
    total = float(((mean_V - mean_V.mean()) ** 2).sum())
    left = float(((mean_V - law(x_V)) ** 2).sum())
    b, c = _span([one.b for one in laws]), _span([one.c for one in laws])
    inside = c[0] > LOWEST_C * AT_THE_EDGE and c[1] < HIGHEST_C / AT_THE_EDGE
    return Fit(
        law,
        _span([one.a for one in laws]),
        b,
        c,
        explained=1 - left / total if total else 0.0,
        x=tuple(x_G.tolist()),
        y=tuple(law(x_G).tolist()),
        low=tuple(low_G.tolist()),
        high=tuple(high_G.tolist()),
        settled=inside and (b[0] > 0 or b[1] < 0),
    )


def _linear(
    x_V: npt.NDArray[np.float64], y_V: npt.NDArray[np.float64], c: float
) -> tuple[float, float, float]:
    """Best a and b for a given c, and what they leave."""
    power_V = x_V**-c
    centred_V = power_V - power_V.mean()
    b = float(centred_V @ y_V / (centred_V @ centred_V))
    a = float(y_V.mean() - b * power_V.mean())
    return a, b, float(((y_V - a - b * power_V) ** 2).sum())


def _span(values: list[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
