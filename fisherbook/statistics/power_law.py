r"""What efficient coding predicts: how Fisher information F(θ) follows the density p(θ) of the stimulus.

An unbiased estimate with variance 1/F makes the mean error :math:`|\Delta|^q \propto F^{-q/2}`, and its logarithm for
q → 0. A code spends a bounded resource to make the mean error over p small. All minima here are power laws,
:math:`\sqrt F \propto p^\alpha`; errors are taken to be small, and F to be free to vary with θ as it likes.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from .. import checks


def optimal_exponent(q: ArrayLike, s: float = 1.0) -> ArrayLike:
    r"""Return α of the code that minimises ∫p F^(-q/2) dθ while ∫F^(s/2) dθ is bounded: α = 1/(s + q).

    Parameters
    ----------
    q : array_like or DataArray
        Of the loss |Δ|^q; 0 is the logarithm.
    s : float
        Of the resource: 1 bounds the code's length ∫√F dθ, 2 the total information ∫F dθ.

    Notes
    -----
    Setting the derivative of :math:`p F^{-q/2} + \lambda F^{s/2}` with respect to F to zero leaves
    :math:`F^{(s+q)/2} \propto p`. For s = 1 this is Wang, Stocker and Lee's (2012) result, and for q = 0 the
    information maximising code, √F ∝ p.

    Examples
    --------
    >>> fb.power_law.optimal_exponent([0, 1, 2]).round(3).tolist()  # the logarithm, |error|, its square
    [1.0, 0.5, 0.333]
    """
    checks.number("s", s, above=0, below=None)
    return 1 / (s + _losses(q))


def optimal_joint_exponent(q: ArrayLike) -> ArrayLike:
    r"""Return α of Ganguli and Simoncelli's (2014) population code, bounded in neurons and in spikes: 1/(1 + 3q/2).

    Parameters
    ----------
    q : array_like or DataArray
        As in `optimal_exponent`.

    Notes
    -----
    Cells of density d and gain g have F ∝ g d². Minimising ∫p F^(-q/2) dθ while ∫d dθ and ∫p g dθ are bounded gives
    :math:`g \propto d^{-2q/(2+q)}` from the derivative with respect to g, then :math:`p \propto d^{(2+3q)/(2+q)}`, and
    :math:`\sqrt F \propto d^{2/(2+q)} \propto p^{2/(2+3q)}`.
    """
    return 1 / (1 + 1.5 * _losses(q))


def root_information(density: ArrayLike, alpha: float, cost: ArrayLike = 1.0) -> NDArray[np.float64]:
    r"""Return the predicted √F, (density / cost)^alpha, with a geometric mean of 1 over the angles.

    Parameters
    ----------
    density : array_like, shape (angle,)
        Positive, at equally spaced angles; its unit does not matter.
    alpha : float
        Such as `optimal_exponent` or `optimal_joint_exponent` gives.
    cost : array_like, shape (angle,)
        What a unit of the resource costs at each angle: ∫cost F^(s/2) dθ is bounded.

    Returns
    -------
    array, shape (angle,)
        Relative to its own scale, which the size of the resource fixes.
    """
    logarithm = alpha * np.log(np.asarray(density, np.float64) / cost)
    return np.exp(logarithm - logarithm.mean())


def fixed_point(cost: ArrayLike, target: ArrayLike = 1.0, power: float = 1.0) -> NDArray[np.float64]:
    r"""Return the density under which the optimal code has √F ∝ target: cost · target^power, summing to 1.

    With a flat target this is the cost itself, whatever the loss: the fixed point of adapting a density until
    information is uniform identifies the constraint (Rast and Drugowitsch 2020).

    Parameters
    ----------
    cost : array_like, shape (angle,)
        As in `root_information`.
    target : array_like, shape (angle,)
        Any scale.
    power : float
        1/α, s + q for a single resource.

    Returns
    -------
    array, shape (angle,)
    """
    density = np.asarray(cost, np.float64) * np.asarray(target, np.float64) ** power
    return density / density.sum()


def null_exponent(log_root: xr.DataArray, steps: Sequence[int], along: str = "stage") -> xr.DataArray:
    r"""Return α₀ = d log √F / d log(steps): the exponent if all a density does is train some angles for longer.

    An angle shown p/p₀ times as often as under the uniform density p₀ has had p/p₀ times as many steps. If these are
    all that counts, √F ∝ p^α₀ whatever is optimal.

    Parameters
    ----------
    log_root : DataArray (..., along)
        ½ log F during training under the uniform density, averaged over the circle.
    steps : sequence of int
        How long training had lasted at each place along that dimension.
    along : str

    Returns
    -------
    DataArray (...)
        Slope of the least-squares line.
    """
    x = xr.DataArray(np.log(steps) - np.log(steps).mean(), dims=along)
    return (log_root * x).sum(along, skipna=False) / (x**2).sum(along)


def _losses(q: ArrayLike) -> ArrayLike:
    q = q if isinstance(q, xr.DataArray) else np.asarray(q, np.float64)
    if (q < 0).any():
        raise ValueError(f"q must not be negative, for losses grow with the error, not {float(q.min()):g}")
    return q


def fit(log_ratio: xr.DataArray, density: xr.DataArray, least: float = 0.1) -> xr.Dataset:
    """Fit √F ∝ p^α where the density is not small, by least squares of log √F against log p.

    Parameters
    ----------
    log_ratio : DataArray (..., angle)
        ½ log of the ratio of F after training with the density to F after training with a uniform one.
    density : DataArray (..., angle)
        Any unit.
    least : float
        Share of the density's maximum below which angles are left out.

    Returns
    -------
    Dataset
        ``exponent`` α, ``offset`` (½ log ratio where the density is at its geometric mean over the angles kept) and
        ``scatter``, the root mean square of what the line leaves, with n - 2 in the denominator; dimensions (...).
        Missing where fewer than three angles are left.
    """
    if "angle" in density.indexes and "angle" in log_ratio.indexes:
        density = density.sortby("angle").reindex_like(log_ratio.angle, method="nearest", tolerance=1e-9, fill_value=-1)
        if (density < 0).any():
            raise ValueError("density must be given at all angles of log_ratio, to 1e-9 rad")
    x = np.log(density.where((density > least * density.max("angle")) & log_ratio.notnull()))
    y = log_ratio.where(x.notnull())
    x, offset = x - x.mean("angle"), y.mean("angle")
    slope = (x * y).sum("angle", min_count=3) / (x**2).sum("angle")
    left = ((y - offset - slope * x) ** 2).sum("angle", min_count=3) / (x.count("angle") - 2)
    return xr.Dataset({"exponent": slope, "offset": offset, "scatter": np.sqrt(left)})


def exponent(log_ratio: xr.DataArray, density: xr.DataArray, least: float = 0.1) -> xr.DataArray:
    """Return α of `fit`, whose parameters these are."""
    return fit(log_ratio, density, least).exponent


def inverse_line(exponents: xr.DataArray, q: ArrayLike) -> xr.Dataset:
    """Fit 1/α = a + b q by least squares of α itself, whose errors stay bounded where α comes near 0.

    Parameters
    ----------
    exponents : DataArray (replicate, loss, ...)
        α of each replicate and loss; it may be negative here and there.
    q : array_like or DataArray (loss)
        The losses' exponents.

    Returns
    -------
    Dataset
        ``intercept`` a and ``slope`` b (replicate, ...), linearised about the fit to the replicates' mean: their mean
        is that fit, and the standard error of their mean is the fit's (delta method).

    Raises
    ------
    ValueError
        If all q are equal, or if the replicates' mean of α is not positive on average over losses: then no such line
        describes it.
    """
    dims = {"input_core_dims": [["replicate", "loss"], ["loss"]], "output_core_dims": [["replicate"]] * 2}
    found = xr.apply_ufunc(_inverse_line, exponents, q, vectorize=True, **dims)
    return xr.Dataset(dict(zip(("intercept", "slope"), found, strict=True)))


def _inverse_line(exponents: NDArray[np.float64], q: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
    mean = exponents.mean(0)
    if not q.max() > q.min():
        raise ValueError(f"a line needs two different q or more, not {q.tolist()}")
    if not mean.mean() > 0:
        raise ValueError(f"1/α has no line where α is not positive, but its mean is {mean.mean():.3g}")
    ends = np.array([q.min(), q.max()])
    share = (q - ends[0]) / (ends[1] - ends[0])
    weights = np.stack([1 - share, share], -1)
    found = least_squares(lambda at: 1 / (weights @ (1 / at)) - mean, np.full(2, mean.mean()), bounds=(1e-3, np.inf))
    line = np.linalg.solve(np.stack([np.ones(2), ends], -1), 1 / found.x)
    design = -np.stack([np.ones(len(q)), q], -1) / (line[0] + line[1] * q)[:, None] ** 2
    return tuple((line + (exponents - mean) @ np.linalg.pinv(design).T).T)
