from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import curve_fit

from rankd_training.errors import SettingError
from rankd_training.trials.power_law import PowerLaw, fit_law, fit_runs

SIZES = np.array([1.0, 2, 4, 8, 16, 32])


@pytest.mark.parametrize("law", [PowerLaw(0.5, 0.1, 0.7), PowerLaw(0.02, 3.0, 1.5), PowerLaw(0.6, -0.2, 0.3)])
def test_an_exact_law_is_found(law: PowerLaw) -> None:
    found = fit_law(SIZES, law(SIZES))
    assert (found.a, found.b, found.c) == pytest.approx((law.a, law.b, law.c), rel=1e-3)


def test_the_fit_is_the_least_squares_that_scipy_finds() -> None:
    law = PowerLaw(0.55, 0.1, 0.8)
    y_V = law(SIZES) + np.random.default_rng(0).normal(size=6) * 0.002
    found = fit_law(SIZES, y_V)
    (a, b, c), _ = curve_fit(lambda x, a, b, c: a + b * x**-c, SIZES, y_V, p0=(0.5, 0.1, 1.0))
    assert (found.a, found.b, found.c) == pytest.approx((a, b, c), rel=1e-3)


def test_the_intervals_hold_the_truth_and_shrink_with_the_noise() -> None:
    law = PowerLaw(0.55, 0.1, 0.8)
    generator = np.random.default_rng(1)
    widths = []
    for noise in (0.004, 0.0005):
        y_VM = law(SIZES)[:, None] + generator.normal(size=(6, 8)) * noise
        fit = fit_runs(SIZES, y_VM, resamples=200)
        assert fit.a[0] < law.a < fit.a[1]
        assert fit.c[0] < law.c < fit.c[1]
        assert all(low <= y <= high for low, y, high in zip(fit.low, fit.y, fit.high, strict=True))
        assert fit.explained > 0.9
        assert fit.settled
        widths.append(fit.c[1] - fit.c[0])
    assert widths[1] < widths[0] / 3


def test_noise_alone_settles_nothing() -> None:
    y_VM = 0.6 + np.random.default_rng(2).normal(size=(6, 3)) * 0.01
    assert not fit_runs(SIZES, y_VM, resamples=100).settled


@pytest.mark.parametrize("sizes", [[1, 2, 4], [1, 2, 2, 4], [0, 1, 2, 4]])
def test_too_few_sizes_are_refused(sizes: list[float]) -> None:
    x_V = np.array(sizes, np.float64)
    with pytest.raises(SettingError, match="four sizes above 0"):
        fit_law(x_V, x_V)
