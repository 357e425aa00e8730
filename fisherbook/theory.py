r"""What efficient coding predicts: how Fisher information F(θ) follows the density p(θ) of the stimulus.

An unbiased estimate with variance 1/F makes the mean error :math:`|\Delta|^q \propto F^{-q/2}`, and its logarithm for
q → 0. A code spends a bounded resource to make the mean error over p small. All minima here are power laws,
:math:`\sqrt F \propto p^\alpha`; errors are taken to be small, and F to be free to vary with θ as it likes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks


def exponent(q: ArrayLike, s: float = 1.0) -> NDArray[np.float64]:
    r"""Return α of the code that minimises ∫p F^(-q/2) dθ while ∫F^(s/2) dθ is bounded: α = 1/(s + q).

    Parameters
    ----------
    q : array_like
        Of the loss |Δ|^q; 0 is the logarithm.
    s : float
        Of the resource: 1 bounds the code's length ∫√F dθ, 2 the total information ∫F dθ.

    Notes
    -----
    Setting the derivative of :math:`p F^{-q/2} + \lambda F^{s/2}` with respect to F to zero leaves
    :math:`F^{(s+q)/2} \propto p`. For s = 1 this is Wang, Stocker and Lee's (2012) result, and for q = 0 the
    information maximising code, √F ∝ p.
    """
    checks.number("s", s, above=0)
    return 1 / (s + _losses(q))


def joint_exponent(q: ArrayLike) -> NDArray[np.float64]:
    r"""Return α of Ganguli and Simoncelli's (2014) population code, bounded in neurons and in spikes: 1/(1 + 3q/2).

    Parameters
    ----------
    q : array_like
        As in `exponent`.

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
        Such as `exponent` or `joint_exponent` gives.
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


def null_exponent(steps: ArrayLike, log_root: ArrayLike) -> NDArray[np.float64]:
    r"""Return α₀ = d log √F / d log(steps): the exponent if all a density does is train some angles for longer.

    An angle shown p/p₀ times as often as under the uniform density p₀ has had p/p₀ times as many steps. If these are
    all that counts, √F ∝ p^α₀ whatever is optimal.

    Parameters
    ----------
    steps : array_like, shape (step,)
        Lengths of training under the uniform density.
    log_root : array_like, shape (..., step)
        ½ log F after each, averaged over the circle.

    Returns
    -------
    array, shape (...)
        Slope of the least-squares line.
    """
    x = np.log(steps) - np.log(steps).mean()
    return (np.asarray(log_root, np.float64) * x).sum(-1) / (x**2).sum()


def _losses(q: ArrayLike) -> NDArray[np.float64]:
    q = np.asarray(q, np.float64)
    if (q < 0).any():
        raise ValueError(f"q must not be negative, for losses grow with the error, not {q.min():g}")
    return q
