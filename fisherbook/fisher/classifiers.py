"""Estimators that lean on scikit-learn: outliers left out, and classifiers between two nearby stimuli.

All take ``(..., side, face, unit)`` responses at theta - delta / 2 and theta + delta / 2, one condition after
the other. A classifier is judged on people it has not seen, five-fold, both sides of a face in one fold, so
that in expectation it never shows more information than there is. Which faces are in a fold, and in the random
subsets of `robust`, is decided by their place among the faces: layers and stages that are shown the same faces are
compared with the same folds, and another order of the faces gives another estimate, within its error. Both
designs, paired and independent, are covered by errors that are summed over people.
"""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .covariance import People, centred, cholesky, people, whiten
from .kernels import Estimate, direct, rescaled

if TYPE_CHECKING:  # half a second, which only these estimators need
    from sklearn.base import BaseEstimator

_FOLDS = 5
_KEPT = 0.975  # of normal faces that are no outliers, as in the reweighting step of FAST-MCD


def robust(pair: Tensor, delta: float, groups: ArrayLike | None = None, design: str = "paired") -> Estimate:
    """`direct` on the faces that are outliers on neither side, by the minimum covariance determinant.

    Notes
    -----
    The faces kept on each side lie within the ellipse of 97.5 % of a normal distribution that their own
    covariance draws, found from scikit-learn's `MinCovDet`; their covariance is scaled to be consistent for
    normal responses. Its estimand is the information of the core of the distribution: that of the
    uncontaminated faces if some are not, that of all if these are normal. Set against the discriminability d'
    of two robust locations, as in earlier work, it is (d' / delta)^2, corrected. The error allows for the
    ellipse's own. The estimate is too large by some 4 % at 20 faces per unit and 15 % at 10.

    References
    ----------
    Rousseeuw and Van Driessen (1999), Technometrics 41: 212-223. Croux and Haesbroeck (1999), J Multivar Anal
    71: 161-190, for the scale, which scikit-learn lacked before 1.8.
    """
    from scipy.stats import chi2

    units = pair.shape[-1]
    cut = chi2(units).ppf(_KEPT)
    scale = chi2(units + 2).cdf(cut) / _KEPT
    feedback = 2 * cut**2 * chi2(units).pdf(cut) / (units * (units + 2) * _KEPT * scale)

    def one(sides: Tensor, who: People) -> Estimate:
        minus, plus = (_core(side.numpy(), cut, scale) for side in sides)
        kept = who.codes[torch.as_tensor(minus & plus)]
        found = direct(sides[:, minus & plus], delta, kept, design)
        influence = sides.new_zeros(len(who.counts)).index_add(0, kept.unique(), found.influence)
        error, influence = found.standard_error / (1 - feedback), influence / (1 - feedback)
        return rescaled(found._replace(standard_error=error, influence=influence), scale)

    return _each(one, pair, groups)


def _core(rows: NDArray, cut: float, scale: float) -> NDArray:
    # The faces within the 97.5 % ellipse that their own covariance, scaled to be consistent, draws.
    from sklearn.covariance import MinCovDet

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "The covariance matrix associated to your dataset is not full rank")
            keep = MinCovDet(random_state=0).fit(rows).support_
        for _ in range(20):
            before, apart = keep, rows - rows[keep].mean(0)
            covariance = apart[keep].T @ apart[keep] / (keep.sum() - 1) / scale
            keep = (apart * np.linalg.solve(covariance, apart.T).T).sum(1) < cut
            if (keep == before).all():
                return keep
    except (ValueError, np.linalg.LinAlgError, UserWarning):
        raise ValueError(
            f"robust finds no core of these {len(rows)} faces: half of them or more agree in some unit or combination "
            f"of the {rows.shape[1]} units, as sparse counts do; direct takes such responses"
        ) from None
    return keep


def discrimination(pair: Tensor, delta: float, groups: ArrayLike | None = None, design: str = "paired") -> Estimate:
    """(d' / delta)^2 of a linear classifier, d' from the area under its receiver operating characteristic.

    Notes
    -----
    d' = sqrt(2) Phi^-1(AUC), less the variance that squaring adds; the variance of the area is that of its
    structural components (DeLong), summed by person. What few faces cost the classifier makes it fall short
    of the linear information. An area is a matter of ranks, which heavy tails hurt less than they hurt
    moments: for these it may exceed the linear information. Where the classifier never errs, the value is a bound
    from below and its error infinite.

    References
    ----------
    DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44: 837-845.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    return _by_area(LinearDiscriminantAnalysis(), pair, delta, groups)


def nonlinear(pair: Tensor, delta: float, groups: ArrayLike | None = None, design: str = "paired") -> Estimate:
    """(d' / delta)^2 of a quadratic classifier: `discrimination` that sees covariances too.

    Notes
    -----
    May exceed the linear information. Of normal responses it shows most of the full information; the area of
    a decision variable that is not normal, and few faces, make it fall short.
    """
    from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

    return _by_area(QuadraticDiscriminantAnalysis(), pair, delta, groups)


def divergence(pair: Tensor, delta: float, groups: ArrayLike | None = None, design: str = "paired") -> Estimate:
    r"""Information from an f-divergence of the two distributions, whatever these are.

    .. math:: D = \frac12 \int \frac{(f-g)^2}{f+g} = 1 - \min_h E (y - h(r))^2,
              I \approx \frac{4 D}{(1 - D) \delta^2}

    Notes
    -----
    y = -1, 1 is the side. The minimum is over all functions h; a kernel ridge regression on faces it has not
    seen cannot go below it, so D is a lower bound in expectation. I is the limit of 4 D / delta^2; 1 - D in
    the denominator changes nothing in the limit and keeps the step's own effect small (0 % at delta sqrt(I) =
    1, +15 % at 2 for normal responses: take a smaller step). Needs no density, and no graph, whose variance
    is much larger for paired faces.

    References
    ----------
    Berisha and Hero (2015), IEEE Signal Process Lett 22: 988-992, for this divergence and its relation to I.
    """
    from sklearn.kernel_ridge import KernelRidge

    model = KernelRidge(kernel="rbf", gamma=0.25 / pair.shape[-1], alpha=1.0)

    def one(sides: NDArray, who: NDArray) -> tuple[float, float, NDArray]:
        loss = (_held_out(model, sides, who, "predict") - np.array([[-1.0], [1.0]])) ** 2
        rest = loss.mean()
        psi = _by_person(rest - loss.mean(0), who) / rest**2
        return 1 / rest - 1, np.inf if (loss < 1).all() else (psi**2).sum() ** 0.5, psi

    return rescaled(_classified(one, pair, groups), 4 / delta**2)


def _by_area(model: "BaseEstimator", pair: Tensor, delta: float, groups: ArrayLike | None) -> Estimate:
    from scipy.stats import norm, rankdata

    def one(sides: NDArray, who: NDArray) -> tuple[float, float, NDArray]:
        minus, plus = _held_out(model, sides, who, "decision_function")
        faces = len(minus)
        ranks = rankdata(np.concatenate([minus, plus]))
        above = (ranks[faces:] - rankdata(plus)) / faces  # share of the other side that each one exceeds
        below = 1 - (ranks[:faces] - rankdata(minus)) / faces
        area = above.mean()
        z = norm.ppf(np.clip(area, 0.25 / faces, 1 - 0.25 / faces))
        psi = _by_person(above + below - 2 * area, who) * np.sqrt(2) / norm.pdf(z)
        variance = (psi**2).sum()
        square = 2 * z**2
        error = np.inf if area in (0, 1) else (4 * square * variance + 2 * variance**2) ** 0.5
        return square - variance, error, 2 * np.sqrt(2) * z * psi

    return rescaled(_classified(one, pair, groups), delta**-2)


def _by_person(values: NDArray, who: NDArray) -> NDArray:
    # Influence of each person on a mean over faces; the sum of squares is its variance.
    sums = np.bincount(who, values)
    return sums / len(values) * np.sqrt(len(sums) / (len(sums) - 1))


def _held_out(model: "BaseEstimator", sides: NDArray, who: NDArray, method: str) -> NDArray:
    from sklearn.model_selection import GroupKFold, cross_val_predict

    side = np.repeat([-1, 1], sides.shape[1])
    folds = GroupKFold(min(_FOLDS, who.max() + 1))
    rows, groups = np.concatenate(sides), np.tile(who, 2)
    try:
        scores = cross_val_predict(model, rows, side, groups=groups, cv=folds, method=method)
    except np.linalg.LinAlgError:
        raise ValueError(
            "nonlinear finds next to no variance on one of the two sides in some combination of units, or too few "
            f"faces for it ({sides.shape[1]}): take a smaller delta, more faces or fewer units; direct takes such "
            "responses"
        ) from None
    return scores.reshape(2, -1)


def _classified(one: Callable, pair: Tensor, groups: ArrayLike | None) -> Estimate:
    def found(sides: Tensor, who: People) -> Estimate:
        value, error, influence = one(sides.numpy(), who.codes.numpy())
        freedom, faces = len(who.counts) - 1.0, sides.shape[1] - 1.0
        return Estimate(*(sides.new_tensor(v) for v in (value, error, freedom, value, faces, influence)))

    return _each(found, pair, groups)


def _each(one: Callable[[Tensor, People], Estimate], pair: Tensor, groups: ArrayLike | None) -> Estimate:
    # One condition after the other, whitened by its responses: the units' scales and mixtures make no
    # difference.
    pair = pair.cpu()
    joint, mean = centred(pair.flatten(-3, -2))
    white = whiten(cholesky(joint, mean, joint.shape[-2] - 1), joint).reshape(-1, *pair.shape[-3:])
    who = people(groups, pair)
    columns = zip(*(one(sides, who)[:-1] for sides in white), strict=True)
    return Estimate(*(torch.stack(c).reshape(*pair.shape[:-3], *c[0].shape) for c in columns))
