"""Linear information where each angle has few trials, or one: what the angles share is estimated from all of them."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
MARGIN = 10  # trials beyond units and mean below which the correction for the inverse is not to be trusted
_SINGULAR = 1e-9  # share of a unit's variance that the others must leave unexplained
_CELLS = 180  # angles apart at which modes and variances are told apart
_ORDER = 10  # highest order of the mean's Fourier series
_SIGNAL = 12  # most directions in which the noise may change with the angle
_TURNS, _STEPS = 3, 20  # rounds of the variances, and steps of expectation-maximisation in each
_PRIOR = 0.2  # trials a unit of independent noise that are added: they keep R from a collapse onto the modes
_BLUR = 0.3  # relative error of the model at one trial a unit; it goes as the square of units a trial (simulation)
_HARMONICS = 4  # of what the check may change


class Pooled(NamedTuple):
    """What `pooled` returns; arrays over ``at``, in rad^-2 where nothing else is said.

    Attributes
    ----------
    information, standard_error : ndarray
        The corrected estimate and its standard error.
    degrees_of_freedom : ndarray
        Of the t distribution that makes an interval.
    plugin : ndarray
        The uncorrected value.
    effective_trials : float
        Degrees of freedom of the common covariance.
    misfit : float
        Logarithm of the odds that the noise along the decoder is not what the model says.
    """

    information: Array
    standard_error: Array
    degrees_of_freedom: Array
    plugin: Array
    effective_trials: float
    misfit: float


class _Mean(NamedTuple):
    order: int
    coefficients: Array  # (term, unit)
    hat: Array  # (term, trial): coefficients = hat @ responses

    def at(self, phase: Array) -> tuple[Array, Array]:
        """Return mean and slope (angle, unit)."""
        basis, slopes = fourier(phase, self.order)
        return basis @ self.coefficients, slopes @ self.coefficients


class _Noise(NamedTuple):
    spread: Array  # (cell, unit) standard deviations without the modes
    terms: Array  # (term, unit) of the logarithm of the variance
    common: Array  # (unit, unit) covariance of what is left, in units of the spread
    modes: Array  # (mode,) variances: of an angle that jitters, of a gain


def fourier(phase: Array, order: int) -> tuple[Array, Array]:
    """Return 1, cos, sin, cos 2, sin 2, ... up to `order`, and the derivatives, ``(angle, 2 order + 1)``."""
    k = np.arange(1, order + 1)
    turn = phase[:, None] * k
    cosine, sine = np.cos(turn), np.sin(turn)
    value, slope = np.ones((len(phase), 2 * order + 1)), np.zeros((len(phase), 2 * order + 1))
    value[:, 1::2], value[:, 2::2] = cosine, sine
    slope[:, 1::2], slope[:, 2::2] = -k * sine, k * cosine
    return value, slope


def pooled(responses: Array, angles: Array, at: Array, period: float = 2 * math.pi) -> Pooled:
    r"""Linear Fisher information from trials at any angles, repeated or all different.

    Parameters
    ----------
    responses : ndarray, shape (trial, unit)
    angles : ndarray, shape (trial,)
        rad, all the way round the circle.
    at : ndarray, shape (angle,)
        rad, where the information is wanted.
    period : float
        The turn (rad) after which a stimulus comes back to itself.

    Notes
    -----
    The model is :math:`\Sigma(\theta) = D R D + c_1 \mu' \mu'^T + c_2 \mu \mu^T`: standard deviations D that are
    smooth in the angle, a correlation R common to all angles, an angle that jitters (differential correlations)
    and a gain. The mean is a Fourier series by generalised cross-validation, one order more than that has the
    least error; log D^2 another, by likelihood; R, c_1 and c_2 follow by expectation-maximisation from
    independent units; a fifth of a trial a unit of such noise is added, which keeps R from a collapse onto the
    modes where trials are few. The inverse of R has the inverse-Wishart correction, over all trials; c_1 and c_2 need
    none. The noise of the mean's slope is taken off.

    Then the check. The optimal decoder's output at each trial is regressed on what else the signal's directions
    carry, with coefficients that change with the angle, and the variance of the rest, relative to what the
    model says, is a log-linear Fourier series; both are shrunk as the evidence of the trials asks. The
    information is divided by that variance. It depends on R, D, c_1 and c_2 only through the decoder then: what
    they get wrong costs information: with many trials the estimate is then too low, and never too high. The same
    trials make the model and check it; the Wishart correction makes up for that, as far as the model holds.

    The standard error has the Wishart term, that of the mean's slope (as in `tangent`), that of the check, and
    what the check had to move from angle to angle, which stands for what it cannot see.

    References
    ----------
    Kanitscheider et al. (2015), PLoS Comput Biol 11(6): e1004218, for the corrections; Rubin and Thayer (1982),
    Psychometrika 47: 69, for expectation-maximisation of factor models; MacKay (1992), Neural Comput 4: 415, for
    shrinkage by evidence; Golub, Heath and Wahba (1979), Technometrics 21: 215, for cross-validation.
    """
    if period == math.inf:
        raise ValueError("pooled takes a stimulus on a circle, not on a line (period=None); smoothed takes both")
    turns = 2 * math.pi / period
    phase, wanted = (np.asarray(a, np.float64) * turns % (2 * math.pi) for a in (angles, at))
    order = np.argsort(phase, kind="stable")
    phase, responses = phase[order], np.asarray(responses, np.float64)[order]
    trials, units = responses.shape
    _check(responses, phase)
    mean = _fit_mean(responses, phase)
    freedom = trials - len(mean.coefficients)
    if freedom < units + MARGIN:
        raise ValueError(
            f"pooled needs at least {units + MARGIN} trials more than its mean has terms "
            f"({len(mean.coefficients)}) for {units} units; {trials} came. Take more trials or fewer units"
        )
    cells = _cells(phase)
    rest = responses - fourier(phase, mean.order)[0] @ mean.coefficients
    _check_rest(rest)
    noise = _fit_noise(rest, mean, cells, freedom)
    kept = (freedom - units - 1) / freedom  # of the inverse of a sample covariance
    here = _decode(mean, noise, cells.phase, kept)
    each = _Decoder(*(values[cells.of] for values in here))
    scaled = rest / noise.spread[cells.of]
    output = (each.weights * scaled).sum(1)
    signal = _signal(here.modes, noise.common)
    others = scaled @ signal - (here.modes[:, 0] @ signal)[cells.of] * (output / each.slope)[:, None]
    left, used, odds = output / np.sqrt(each.variance), 0.0, 0.0
    if units > 1:  # one unit is all that there is: nothing else is carried
        left, used, odds = _regress(left, others, fourier(phase, _HARMONICS - 1)[0])
    points = np.concatenate([wanted, cells.phase])
    excess, unsure, more = _log_variance(left**2 * (trials / (freedom - used)), phase, points)
    blur = excess[len(wanted) :].var() + (_BLUR * (units / freedom) ** 2) ** 2
    excess, unsure = excess[: len(wanted)], unsure[: len(wanted)]
    there = _decode(mean, noise, wanted, kept)
    slopes, along = _slope_noise(mean, noise, cells, here.modes, wanted, there.weights)
    checked = np.exp(-excess)
    whole = checked * there.information
    found = whole - slopes
    tails = max(1.0, ((left**4).mean() / (left**2).mean() ** 2 - 1) / 2)
    unsure = np.maximum(unsure - 2 / trials, 0)  # its mean is in the Wishart term
    relative = tails * (2 / (freedom - units - 3) + unsure) + blur
    square = whole**2 * relative + (2 * kept * checked * there.share) ** 2 * along
    error = np.sqrt(np.maximum(square - 2 * slopes**2 / units, 2 * slopes**2 / units))
    plain = (there.modes[:, 0] * np.linalg.solve(noise.common, there.modes[:, 0].T).T).sum(1)
    scale = turns**2
    return Pooled(
        scale * found, scale * error, np.full(len(wanted), float(freedom - units)), scale * plain, float(freedom),
        max(odds, more),
    )  # fmt: skip


class _Cells(NamedTuple):
    phase: Array  # (cell,)
    of: NDArray[np.int64]  # (trial,), ascending
    starts: NDArray[np.int64]  # (cell,) the first trial of each
    counts: Array  # (cell,)

    def sums(self, values: Array) -> Array:
        """Sum over the trials of each cell."""
        return np.add.reduceat(values, self.starts, axis=0)


def _cells(phase: Array) -> _Cells:
    snapped = phase.round(9)
    if len(np.unique(snapped)) > _CELLS:
        width = 2 * math.pi / _CELLS
        snapped = (np.floor(phase / width) + 0.5) * width
    centres, starts, of, counts = np.unique(snapped, return_index=True, return_inverse=True, return_counts=True)
    return _Cells(centres, of, starts, counts.astype(float))


def _check(responses: Array, phase: Array) -> None:
    distinct = np.unique(phase.round(9))
    gap = np.diff(distinct, append=distinct[0] + 2 * math.pi).max()
    if len(distinct) < 5 or gap > math.pi / 2:
        raise ValueError(
            f"pooled needs 5 or more angles all the way round the circle, not {len(distinct)} with a gap of "
            f"{gap / (2 * math.pi):.2g} turns"
        )
    if not np.isfinite(responses).all():
        raise ValueError("activity must be finite, but some of it is NaN or infinite")
    rows = np.sort(responses, axis=0)
    for what, wrong in (
        ("are constant", rows[0] == rows[-1]),
        ("differ from a constant in one trial alone", (rows[1] == rows[-1]) | (rows[0] == rows[-2])),
    ):
        if wrong.any():
            raise ValueError(
                f"{wrong.sum()} of {len(wrong)} units {what} (the first is unit {wrong.argmax()}): "
                "leave these units out, as units='drop' of estimate does"
            )


def _check_rest(rest: Array) -> None:
    units = rest.shape[1]
    scaled = rest / rest.std(0)
    if units > 1 and np.linalg.eigvalsh(scaled.T @ scaled / len(rest))[0] < _SINGULAR:
        raise ValueError(
            f"the covariance of {units} units over {len(rest)} trials is singular: some units are linear combinations "
            "of others, or recorded twice; leave these out"
        )


def _fit_mean(responses: Array, phase: Array) -> _Mean:
    trials, distinct = len(phase), len(np.unique(phase.round(9)))
    most = max(1, min(_ORDER, (distinct - 2) // 2, (trials - 2) // 4))
    scaled = responses / responses.std(0)
    explained = ((np.linalg.qr(fourier(phase, most)[0])[0].T @ scaled) ** 2).sum(1).cumsum()[2::2]
    terms = 2 * np.arange(1, most + 1) + 1
    left = ((scaled**2).sum() - explained) / (1 - terms / trials) ** 2
    order = min(most, int(left.argmin()) + 2)  # a derivative asks for one order more
    hat = np.linalg.pinv(fourier(phase, order)[0])
    return _Mean(order, hat @ responses, hat)


def _fit_noise(rest: Array, mean: _Mean, cells: _Cells, freedom: int) -> _Noise:
    units, trials = rest.shape[1], len(rest)
    raw = np.stack(mean.at(cells.phase)[::-1], 1)  # (cell, mode, unit): slope and mean
    square, common, strength, order = cells.sums(rest**2), None, None, None
    for turn in range(_TURNS):
        terms, spread = _unit_variances(square, cells, mean.order if turn < 2 else order, turn < 2)
        order = len(terms) // 2
        z, modes = rest / spread[cells.of], raw / spread[:, None]
        flat = modes.reshape(-1, units)
        if common is None:  # from independent units: a strong gain is found at once, where it would hide in R
            length = (modes**2).sum(2)[cells.of]
            played = (modes[cells.of] @ z[:, :, None])[:, :, 0] ** 2
            common = np.eye(units)
            strength = np.maximum(((played - length) / length**2).mean(0), 0.1 / length.mean(0))
        total = z.T @ z
        for _ in range(_STEPS):
            white = (flat @ np.linalg.inv(common)).reshape(modes.shape)
            spare = np.linalg.inv(np.diag(1 / strength) + white @ modes.transpose(0, 2, 1))
            latent = ((spare @ white)[cells.of] @ z[:, :, None])[:, :, 0]
            cross = cells.sums(latent[:, :, None] * z[:, None]).reshape(flat.shape).T @ flat
            moment = cells.sums(latent[:, :, None] * latent[:, None]) + cells.counts[:, None, None] * spare
            common = (total - cross - cross.T + (moment @ modes).reshape(flat.shape).T @ flat) / freedom
            common = (freedom * common + _PRIOR * units * np.eye(units)) / (freedom + _PRIOR * units)
            strength = np.diagonal(moment.sum(0)) / trials
        own = rest - (latent[:, None] @ raw[cells.of])[:, 0]
        square = cells.sums(own**2) + cells.counts[:, None] * ((spare @ raw) * raw).sum(1)
    return _Noise(spread, terms, common, strength)


def _unit_variances(square: Array, cells: _Cells, order: int, choose: bool) -> tuple[Array, Array]:
    # log-linear in a Fourier basis, the order by Akaike's criterion: one for all units
    average, best = square / cells.counts[:, None], None
    for k in range(order + 1) if choose else [order]:
        basis = fourier(cells.phase, k)[0]
        weighted = basis.T * cells.counts
        solve = np.linalg.solve(weighted @ basis + 1e-6 * np.eye(len(weighted)), weighted)
        eta = np.broadcast_to(np.log(square.sum(0) / cells.counts.sum()), average.shape)
        for _ in range(12):
            terms = solve @ (eta + np.minimum(average * np.exp(-eta), 1e3) - 1)
            eta = basis @ terms
        score = (cells.counts[:, None] * (average * np.exp(-eta) + eta)).sum() + 2 * terms.size
        if best is None or score < best[0]:
            best = score, terms, np.exp(eta / 2)
    return best[1:]


class _Decoder(NamedTuple):
    weights: Array  # (angle, unit) on responses in units of the spread
    information: Array  # (angle,) that the model promises
    variance: Array  # (angle,) of the output, in this sample
    slope: Array  # (angle,) of the output's mean
    share: Array  # (angle,) of an error of the mean's slope that reaches the information: its mode has it too
    modes: Array  # (angle, mode, unit) slope and mean in units of the spread


def _decode(mean: _Mean, noise: _Noise, phase: Array, kept: float) -> _Decoder:
    spread = np.exp(fourier(phase, len(noise.terms) // 2)[0] @ noise.terms / 2)
    modes = np.stack(mean.at(phase)[::-1], 1) / spread[:, None]
    white = np.linalg.solve(noise.common, modes.reshape(-1, modes.shape[2]).T).T.reshape(modes.shape)
    gram = white @ modes.transpose(0, 2, 1)
    share = np.linalg.solve(np.diag(1 / noise.modes) + kept * gram, kept * gram[:, :, :1])[:, :, 0]
    weights = white[:, 0] - (share[:, None] @ white)[:, 0]
    output = (modes @ weights[:, :, None])[:, :, 0]
    variance = ((weights @ noise.common) * weights).sum(1) + output**2 @ noise.modes
    return _Decoder(weights, kept * output[:, 0], variance, output[:, 0], 1 - share[:, 0], modes)


def _signal(modes: Array, common: Array) -> Array:
    # directions (unit, direction) of scaled responses that carry slope and mean at any angle
    white = np.linalg.inv(np.linalg.cholesky(common)).T
    size = np.sqrt((modes**2).sum((0, 2)))
    rows = (modes / size[:, None] @ white).reshape(-1, len(common))
    _, strength, directions = np.linalg.svd(rows, full_matrices=False)
    share = (strength**2).cumsum() / (strength**2).sum()
    return white @ directions[: min(_SIGNAL, int(np.searchsorted(share, 0.999)) + 1)].T


def _regress(output: Array, others: Array, basis: Array) -> tuple[Array, float, float]:
    # what is left of the output, the degrees of freedom used, and the odds for it that the evidence gives
    others = others / np.sqrt((others**2).mean(0))
    x = (others[:, :, None] * basis[:, None]).reshape(len(output), -1)
    harmonic = np.tile((np.arange(basis.shape[1]) + 1) // 2, others.shape[1])
    gram, along, tried = x.T @ x, x.T @ output, []
    for constant in (1e6, 3000, 300, 30):
        for turning in (1e6, 3000, 300, 30):
            prior = np.where(harmonic == 0, constant, turning * np.maximum(harmonic, 1) ** 2)
            precision = gram + np.diag(prior)
            terms = np.linalg.solve(precision, along)
            left = output @ output - along @ terms
            evidence = (np.log(prior).sum() - np.linalg.slogdet(precision)[1] - len(output) * np.log(left)) / 2
            tried.append((evidence, terms, precision))
    plain, (evidence, terms, precision) = tried[0][0], max(tried, key=lambda one: one[0])
    return output - x @ terms, np.trace(np.linalg.solve(precision, gram)), evidence - plain


def _log_variance(square: Array, phase: Array, wanted: Array) -> tuple[Array, Array, float]:
    # its mean and variance at `wanted`, averaged over how much it may change, and the odds that it does
    basis, there = (fourier(p, _HARMONICS)[0] for p in (phase, wanted))
    found, evidences = [], []
    for size in (1e-3, 0.03, 0.06, 0.1, 0.15, 0.25, 0.4):
        prior = np.r_[1e-9, np.full(2 * _HARMONICS, size**-2)]
        precision, terms = basis.T @ basis / 2 + np.diag(prior), np.zeros(len(prior))
        for _ in range(20):
            ratio = np.minimum(square * np.exp(-basis @ terms), 1e3)
            terms = terms + np.linalg.solve(precision, basis.T @ (ratio - 1) / 2 - prior * terms)
        eta = basis @ terms
        evidence = -(square * np.exp(-eta) + eta).sum() - prior @ terms**2 + np.log(prior).sum()
        evidences.append((evidence - np.linalg.slogdet(precision)[1]) / 2)
        found.append((there @ terms, np.einsum("ap,pq,aq->a", there, np.linalg.inv(precision), there)))
    weight = np.exp(np.array(evidences) - max(evidences))
    weight /= weight.sum()
    values, variances = (np.array(column) for column in zip(*found, strict=True))
    centre = weight @ values
    return centre, weight @ (variances + (values - centre) ** 2), max(evidences) - evidences[0]


def _slope_noise(
    mean: _Mean, noise: _Noise, cells: _Cells, modes: Array, wanted: Array, weights: Array
) -> tuple[Array, Array]:
    # of the slope fitted at `wanted`: its information, which is not the stimulus', and its variance along weights
    hat = fourier(wanted, mean.order)[1] @ mean.hat
    share = cells.sums((hat**2).T).T  # (angle, cell)
    spread = np.exp(fourier(wanted, len(noise.terms) // 2)[0] @ noise.terms / 2)
    product = np.linalg.inv(noise.common) * noise.common
    trace, along = np.empty(len(wanted)), np.empty(len(wanted))
    for i in range(len(wanted)):
        ratio = noise.spread / spread[i]
        moved = ratio * weights[i]
        trace[i] = share[i] @ ((ratio @ product) * ratio).sum(1)
        played = (modes @ moved[:, :, None])[:, :, 0] ** 2 @ noise.modes
        along[i] = share[i] @ (((moved @ noise.common) * moved).sum(1) + played)
    return trace, along
