"""The fixed-point iteration: re-weight the training density by the measured information until that is uniform.

Densities are natural logarithms ℓ = log p on `angles.grid`, curves φ = ½ log F. A *scheme* turns a measured curve into
the next density; a *measure* is whatever answers a density with curves: networks trained on it (`Networks`), or any
callable. `adapt` runs one with the other, several chains at once.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from . import angles as circle
from . import checks, curves, results
from .activity import record
from .ensembles import Ensemble, Stage
from .findings import Estimate, over_replicates
from .networks import Network
from .stimulus import Stimulus
from .store import Store, default_store, digest, source_digest
from .training import train

Array = NDArray[np.float64]
State = Mapping[str, Any]
Measure = Callable[[Array], Array]
LIMIT = np.log(50)  # of |log p - log uniform|
_DEGENERATE = np.log(20)
_UNIFORM = -np.log(2 * np.pi)
_MODULES = ("angles", "derivative", "stimulus", "networks", "losses", "training", "activity", "curves", "adaptation")


# A scheme is a pure function (ℓ, φ, error of φ, state; options) → (ℓ, state): arrays (chain, angle), the state a
# mapping, empty at first. What it returns needs no normalisation; `state["solution"]`, if there, is its best answer.


def plain(log_density: Array, curve: Array, error: Array, state: State, scales: int = 16) -> tuple[Array, State]:
    """ℓ ← ℓ - P_K φ, K = `scales` frequencies kept: the prior work's iteration."""
    return log_density - band(curve, scales), state


def smoothed(
    log_density: Array, curve: Array, error: Array, state: State, width: float = 0.4, scales: int = 16
) -> tuple[Array, State]:
    """As `plain`, with the curve smoothed by a Gaussian kernel of `width` rad."""
    return log_density - band(curve, scales, lambda k: np.exp(-0.5 * (k * width) ** 2)), state


def damped(
    log_density: Array, curve: Array, error: Array, state: State, rate: float = 0.3, scales: int = 16
) -> tuple[Array, State]:
    """ℓ ← ℓ - `rate` P_K φ."""
    return log_density - rate * band(curve, scales), state


def robbins_monro(
    log_density: Array, curve: Array, error: Array, state: State, rate: float = 2.0, power: float = 0.7,
    scales: int = 16,
) -> tuple[Array, State]:  # fmt: skip
    """ℓ ← ℓ - a_n P_K φ with a_n = `rate` (n + 1)^-`power`, where n counts from 0."""
    n = state.get("n", 0)
    return log_density - rate * (n + 1) ** -power * band(curve, scales), {"n": n + 1}


def fourier(
    log_density: Array, curve: Array, error: Array, state: State, rate: float = 1.0, scales: int = 2
) -> tuple[Array, State]:
    """A density of few parameters: log p is a Fourier series of `scales` frequencies."""
    return band(log_density - rate * curve, scales), state


def von_mises_mixture(
    log_density: Array, curve: Array, error: Array, state: State, rate: float = 1.0, components: int = 6,
    scales: int = 16,
) -> tuple[Array, State]:  # fmt: skip
    """A density of few parameters: von Mises densities at equal distances and the uniform one, mixed."""
    wanted = np.exp(normalised(log_density - rate * band(curve, scales))[0])
    at = circle.grid(wanted.shape[1])
    concentration = (components / np.pi) ** 2
    basis = [circle.von_mises(centre, concentration).pdf(at) for centre in circle.grid(components)]
    basis = np.stack([*basis, np.exp(np.full(len(at), _UNIFORM))], 1)
    mixed = np.stack([basis @ nnls(basis, p)[0] for p in wanted])
    return np.log(np.maximum(mixed, np.exp(_UNIFORM - LIMIT))), state


def mean_reverting(
    log_density: Array, curve: Array, error: Array, state: State, kept: int = 4, reversion: float = 0.5,
    scales: int = 16,
) -> tuple[Array, State]:  # fmt: skip
    """As `plain` for the first `kept` frequencies; above, ℓ_k is drawn back to 0 by the share `reversion`."""
    back = band(log_density, None, lambda k: np.where(k > kept, reversion, 0.0))
    return log_density - back - band(curve, scales), state


def anderson(
    log_density: Array, curve: Array, error: Array, state: State, memory: int = 3, scales: int = 16
) -> tuple[Array, State]:
    """Anderson acceleration of `plain`: the combination of the latest densities whose curves cancel best."""
    residual = -band(curve, scales)
    past = (*state.get("past", ()), (log_density, residual))[-memory - 1 :]
    if len(past) == 1:
        return log_density + residual, {"past": past}
    moved, changed = (np.stack([new[i] - old[i] for old, new in itertools.pairwise(past)], -1) for i in (0, 1))
    weights = np.stack([np.linalg.lstsq(c, r, rcond=1e-3)[0] for c, r in zip(changed, residual, strict=True)])
    step = residual - np.einsum("cam,cm->ca", moved + changed, weights)
    return log_density + step, {"past": past}


def newton(
    log_density: Array, curve: Array, error: Array, state: State, gain: ArrayLike = (0.3, 0.3, 0.2, 0.15),
    power: float = 0.7, reversion: float = 0.5,
) -> tuple[Array, State]:  # fmt: skip
    """ℓ_k ← ℓ_k - (n + 1)^-`power` φ_k / G_k for k = 1, 2, … of `gain`; where that is 0 or missing, ℓ_k is drawn back.

    The solution is the average of all densities after the first step (Polyak and Ruppert).
    """
    n, of = state.get("n", 0), _by_scale(gain)
    newtons = band(curve, None, lambda k: np.divide(1.0, of(k), out=np.zeros(len(k)), where=of(k) > 0))
    back = band(log_density, None, lambda k: np.where(of(k) > 0, 0.0, reversion))
    following = normalised(log_density - (n + 1) ** -power * newtons - back)[0]
    mean = following if n == 0 else (state["solution"] * n + following) / (n + 1)
    return following, {"n": n + 1, "solution": mean}


#: The schemes of `adapt`, by name.
SCHEMES: dict[str, Callable[..., tuple[Array, State]]] = {
    scheme.__name__: scheme
    for scheme in (
        plain, smoothed, damped, robbins_monro, fourier, von_mises_mixture, mean_reverting, anderson, newton,
    )
}  # fmt: skip


def band(curve: ArrayLike, scales: int | None, weight: Callable[[Array], Array] | None = None) -> Array:
    """Return the frequencies k = 1 … `scales` of curves (..., angle), each times `weight(k)`; the mean is left out."""
    curve = np.asarray(curve, np.float64)
    k = np.arange(curve.shape[-1] // 2 + 1)
    factor = np.where((k > 0) & (k <= (scales or k[-1])), 1.0, 0.0) * (1.0 if weight is None else weight(k))
    return np.fft.irfft(np.fft.rfft(curve) * factor, curve.shape[-1])


def _by_scale(values: ArrayLike) -> Callable[[Array], Array]:
    """Return the function of the frequency k that has the given values at k = 1, 2, …, and 0 elsewhere."""
    known = np.concatenate([[0.0], np.nan_to_num(np.asarray(values, np.float64)), [0.0]])
    return lambda k: known[np.minimum(k, len(known) - 1)]


def coefficients(curve: ArrayLike) -> NDArray[np.complex128]:
    """Return c_k of curves (..., angle) = Σ_k Re c_k exp(ikθ) on `angles.grid`, (..., frequency), k = 0 first."""
    curve = np.asarray(curve, np.float64)
    k = np.arange(curve.shape[-1] // 2 + 1)
    return np.fft.rfft(curve) * np.exp(1j * np.pi * k) * np.where(k, 2, 1) / curve.shape[-1]


def normalised(log_density: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    """Return ℓ (..., angle) clipped at log 50 from uniform and with ∫ exp ℓ = 1, and how many angles were clipped."""

    def whole(values: Array) -> Array:
        top = values.max(-1, keepdims=True)
        return values - top - np.log(np.exp(values - top).mean(-1, keepdims=True)) + _UNIFORM

    log_density = whole(np.asarray(log_density, np.float64))
    clipped = log_density.clip(_UNIFORM - LIMIT, _UNIFORM + LIMIT)
    return whole(clipped), (clipped != log_density).sum(-1)


def degenerate(log_density: ArrayLike) -> NDArray[np.str_]:
    """Name what is wrong with densities (..., angle): ``spike`` (20 times uniform), ``hole`` (a 20th), or ``none``."""
    excess = np.asarray(log_density) - _UNIFORM
    spike, hole = (excess > _DEGENERATE).any(-1), (excess < -_DEGENERATE).any(-1)
    return np.select([spike & hole, spike, hole], ["spike and hole", "spike", "hole"], "none")


def multisines(chains: int, angles: int, rms: float = 0.5, scales: int = 4, seed: int = 0) -> Array:
    """Return ℓ (chain, angle) with equal amplitudes at k = 1 … `scales`, random phases and this rms about its mean."""
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, (chains, scales, 1))
    waves = np.cos(np.arange(1, scales + 1)[:, None] * circle.grid(angles) + phases).sum(1)
    return normalised(rms * np.sqrt(2 / scales) * waves)[0]


def adapt(
    measure: Measure,
    scheme: str,
    starts: ArrayLike,
    iterations: int,
    target: ArrayLike | None = None,
    store: Store | None = None,
    **options: Any,
) -> xr.Dataset:
    """Iterate towards the density under which information is uniform, or √F has the shape of a target.

    Parameters
    ----------
    measure : callable
        Takes the densities so far, ℓ (iteration, chain, angle), and returns curves φ = ½ log F (chain, replicate,
        angle) for the last. If it has a text attribute ``key``, the digest of all that it depends on, every iteration
        is stored as it ends, and found again.
    scheme : str
        One of `SCHEMES`.
    starts : array_like, shape (chain, angle)
        Logarithms of densities on `angles.grid`, not necessarily normalised.
    iterations : int
    target : array_like, shape (angle,), optional
        √F, up to a factor. By default uniform.
    store : Store, optional
        By default `default_store()`.
    **options
        The scheme's own.

    Returns
    -------
    Dataset
        ``log_density`` ℓ_n and the scheme's ``solution`` after n steps (iteration, chain, angle), n = 0 … iterations;
        ``log_fisher`` φ_n, measured under ℓ_n (iteration, chain, replicate, angle), missing for the last;
        ``clipped``, the number of angles clipped, and ``degenerate`` (iteration, chain); ``target`` (angle), log √F.

    Raises
    ------
    RuntimeError
        If no replicate of a chain has a finite curve.
    """
    step = functools.partial(SCHEMES[checks.one_of("scheme", scheme, SCHEMES)], **options)
    starts = np.asarray(starts, np.float64)
    checks.shape("starts", starts.shape, "chain", "angle")
    wanted = np.zeros(starts.shape[1]) if target is None else np.log(np.asarray(target, np.float64))
    log_density, clipped = normalised(starts)
    state, densities, solutions, clips, measured = {}, [log_density], [log_density], [clipped], []
    for n in range(checks.whole_number("iterations", iterations)):
        curve = _measured(measure, np.stack(densities), store)
        if lost := np.flatnonzero(~np.isfinite(curve).all(-1).any(-1)).tolist():
            raise RuntimeError(f"no replicate has a finite curve in iteration {n} of chains {lost}")
        log_density, state = step(log_density, *_mean(curve - wanted), state)
        log_density, clipped = normalised(log_density)
        solution = normalised(state["solution"])[0] if "solution" in state else log_density
        for kept, new in ((densities, log_density), (solutions, solution), (clips, clipped), (measured, curve)):
            kept.append(new)
    over = ("iteration", "chain")
    found = xr.Dataset(
        {
            "log_density": ((*over, "angle"), densities),
            "solution": ((*over, "angle"), solutions),
            "log_fisher": ((*over, "replicate", "angle"), [*measured, np.full_like(curve, np.nan)]),
            "clipped": (over, clips),
            "degenerate": (over, degenerate(densities)),
            "target": ("angle", wanted),
        },
        _coords(curve) | {"iteration": np.arange(iterations + 1)},
        {"scheme": scheme, "options": str(options)},
    )
    return results.validate(results.label(found))


def _coords(curve: Array) -> dict[str, Array]:
    chains, replicates, angles = curve.shape
    return {"chain": np.arange(chains), "replicate": np.arange(replicates), "angle": circle.grid(angles)}


def _mean(curve: Array) -> tuple[Array, Array]:
    """Return the mean over replicates with a finite curve, and its standard error; 0 for a single one."""
    sound = np.isfinite(curve).all(-1, keepdims=True)
    count = sound.sum(1)
    mean = np.where(sound, curve, 0.0).sum(1) / count
    squares = (np.where(sound, curve - mean[:, None], 0.0) ** 2).sum(1)
    return mean, np.sqrt(squares / count / np.maximum(count - 1, 1))


def _measured(measure: Measure, densities: Array, store: Store | None) -> Array:
    if not hasattr(measure, "key"):
        return np.asarray(measure(densities), np.float64)
    key = digest([measure.key, densities.round(9)])

    def compute(_missing: list[str]) -> Iterator[tuple[str, xr.Dataset]]:
        curve = np.asarray(measure(densities), np.float64)
        found = xr.Dataset({"log_fisher": (("chain", "replicate", "angle"), curve)}, _coords(curve))
        yield key, results.label(found)

    store = store or default_store()
    return store.fill("adaptation", [key], compute, results.save, results.load, ".nc")[key]["log_fisher"].values


@dataclass(frozen=True)
class Linear:
    """A measure whose answer is known: φ_k = G_k (ℓ_k - ℓ*_k) + ξ_k, k = 1, 2, …, in `coefficients`.

    Parameters
    ----------
    gain, noise : sequence of float
        G_k, and the mean of |ξ_k|² in one replicate; ξ is drawn anew at every iteration, in every chain and replicate.
    replicates : int
    fixed_point : tuple of float, optional
        ℓ* on `angles.grid`. By default uniform.
    seed : int
    """

    gain: tuple[float, ...]
    noise: tuple[float, ...]
    replicates: int = 4
    fixed_point: tuple[float, ...] | None = None
    seed: int = 0

    def __call__(self, densities: Array) -> Array:
        """Return φ (chain, replicate, angle) for the last of the densities ℓ (iteration, chain, angle)."""
        away = densities[-1] - (0.0 if self.fixed_point is None else np.asarray(self.fixed_point))
        drawn = np.random.default_rng((self.seed, len(densities))).standard_normal(
            (len(away), self.replicates, away.shape[1])
        )  # white: |c_k|² is 4 / angles on average
        scale = np.sqrt(np.asarray(self.noise) * away.shape[1] / 4)
        answer, noise = band(away, None, _by_scale(self.gain)), band(drawn, None, _by_scale(scale))
        return answer[:, None] + noise


@dataclass(frozen=True)
class Networks:
    """A measure: networks pre-trained once, each fine-tuned on its chain's density at every iteration.

    Parameters
    ----------
    stimulus : Stimulus
        With as many folds as replicates, or a number that divides it.
    network : Network
    pretraining, finetuning : Stage
        The second one's density is replaced.
    replicates : int
        Networks per chain.
    angles : int
        On which curves are measured and densities tabulated.
    split : str
        The faces that drive: whose curve is measured.
    pretrained : {"fixed", "redrawn", "chain"}
        Replicate r of every chain begins at every iteration at pre-trained network r; at a pre-trained network drawn
        anew; or all replicates of chain c begin at pre-trained network c (which needs a single fold).
    pool : int, optional
        Draw from that many sets of pre-trained networks, instead of pre-training new ones each time.
    warm : bool
        Each iteration begins where the one before ended, instead of at pre-trained weights.
    seed : int
    device : str
    store : Store, optional
    """

    stimulus: Stimulus
    network: Network
    pretraining: Stage
    finetuning: Stage
    replicates: int = 4
    angles: int = 128
    split: str = "train"
    pretrained: str = "fixed"
    pool: int | None = None
    warm: bool = False
    seed: int = 0
    device: str = "auto"
    store: Store | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        checks.one_of("pretrained", self.pretrained, ["fixed", "redrawn", "chain"])
        folds = self.stimulus.faces.folds
        if self.replicates % folds or (folds > 1 and self.pretrained == "chain"):
            raise ValueError(
                f"{folds} folds of the faces don't go with {self.replicates} replicates, {self.pretrained!r}"
            )

    @property
    def key(self) -> str:
        """Digest of all that the curves depend on."""
        own = {k: v for k, v in vars(self).items() if k not in ("stimulus", "store")}
        return digest([own, self.stimulus.digest, source_digest(*_MODULES)])

    def __call__(self, densities: Array) -> Array:
        """Return φ (chain, replicate, angle) for the last of the densities ℓ (iteration, chain, angle)."""
        iterations, chains, _ = densities.shape
        shared = {"seed": self.seed, "device": self.device, "store": self.store, "progress": False}
        start = self._pretrained(chains, iterations - 1, shared)
        stages = [self._stage(n, densities[n]) for n in range(0 if self.warm else iterations - 1, iterations)]
        replicates = list(range(chains * self.replicates))
        trained = train(self.stimulus, self.network, stages, replicates, start=start, **shared)
        found = log_fisher(trained, self.stimulus, self.angles, self.split)
        if not self.warm:  # nobody will ask for these weights again
            for key in trained.keys[stages[-1].name]:
                (self.store or default_store()).remove("weights", key, ".pt")
        return found.reshape(chains, self.replicates, self.angles)

    def _stage(self, n: int, densities: Array) -> Stage:
        own = tuple(circle.tabulated(p) for p in np.exp(densities) for _ in range(self.replicates))
        return replace(self.finetuning, name=f"{self.finetuning.name} {n}", density=own if len(own) > 1 else own[0])

    def _pretrained(self, chains: int, iteration: int, shared: Mapping[str, Any]) -> list[str]:
        """Keys of the weights where each chain's replicates begin."""
        rows, chain = np.arange(self.replicates), np.arange(chains)[:, None]
        round_ = 0 if self.warm else iteration
        block = round_ * chains + chain
        if self.pool is not None:
            block = np.random.default_rng((self.seed, round_)).integers(self.pool, size=chain.shape)
        members = {"fixed": rows + 0 * chain, "redrawn": self.replicates * block + rows, "chain": chain + 0 * rows}
        members = members[self.pretrained].ravel()
        names = np.unique(members)
        trained = train(self.stimulus, self.network, [self.pretraining], names.tolist(), **shared)
        keys = dict(zip(names.tolist(), trained.keys[self.pretraining.name], strict=True))
        return [keys[m] for m in members.tolist()]


def log_fisher(
    ensemble: Ensemble, stimulus: Stimulus, angles: int, split: str, stage: str | None = None, together: int = 16
) -> Array:
    """Return φ (replicate, angle) after a stage, of so many networks at a time: any number of them fits the memory."""
    blocks = np.split(ensemble.replicate, range(together, len(ensemble.replicate), together))
    found = [record(ensemble.select(block), stimulus, angles, split, stage) for block in blocks]
    return np.concatenate([curves.log_fisher(activity, bias=False)["log_fisher"].values[0] for activity in found])


def fresh_check(final: ArrayLike, start: ArrayLike, scales: int, target: ArrayLike = 0.0) -> Estimate:
    """Estimate U at the end over U at the start: U is the power that independent networks' curves share.

    U = Σ_k ⟨Re φ_k^a conj φ_k^b⟩ over pairs of replicates a ≠ b and k = 1 … `scales`, averaged over chains.

    Parameters
    ----------
    final, start : array_like, shape (chain, replicate, angle)
        φ of new networks at the scheme's solutions, and φ at the starts.
    scales : int
        Scales kept, fixed beforehand.
    target : array_like, shape (angle,)
        Logarithm of the wanted √F.

    Returns
    -------
    Estimate
        Of the ratio itself, its error by the jackknife over the replicates of both.
    """
    parts = [coefficients(np.asarray(c) - target)[..., 1 : scales + 1] for c in (final, start)]

    def shared(c: NDArray) -> float:
        n = c.shape[1]
        return float((np.abs(c.sum(1)) ** 2 - (np.abs(c) ** 2).sum(1)).sum(-1).mean() / (n * (n - 1)))

    ends, begins = (_jackknife(shared, c, axis=1) for c in parts)
    ratio = ends.value / begins.value
    error = np.hypot(ends.standard_error, ratio * begins.standard_error) / abs(begins.value)
    return replace(ends, value=ratio, standard_error=float(error))


def meeting(found: xr.Dataset, scales: int | None, reference: xr.Dataset | None = None) -> Estimate:
    """Estimate how near the chains have come: the logarithm of a ratio of variances between chains.

    Parameters
    ----------
    found : Dataset
        From `adapt`, started from different densities.
    scales : int or None
        Frequencies k = 1 … `scales`; None takes all.
    reference : Dataset, optional
        Another scheme's: its variance at the end, over that of `found`. By default that of `found` at the end over its
        own at the start.

    Returns
    -------
    Estimate
        Its error by the jackknife over chains.
    """
    last = band(found.solution.values[-1], scales)
    other = band(found.log_density.values[0] if reference is None else reference.solution.values[-1], scales)
    sign = 1 if reference is None else -1

    def ratio(both: NDArray) -> float:
        return float(sign * np.log(both.var(0, ddof=1).sum(-1)) @ [1, -1])

    return _jackknife(ratio, np.stack([last, other], 1), of="chains")


def planted(found: xr.Dataset, without: xr.Dataset, gain: ArrayLike, gain_error: ArrayLike = 0.0) -> Estimate:
    """Estimate how much of the shift that a target should cause has come about: 1 if all, 0 if none.

    The target log t should move the solution by t_k / G_k; the shift measured is projected on this one.

    Parameters
    ----------
    found, without : Dataset
        From `adapt`, with the target and without, else the same.
    gain, gain_error : array_like, shape (frequency,)
        G_k at k = 1, 2, …, and its standard error; the target has to lie in these scales.

    Returns
    -------
    Estimate
        Its error from the spread over chains and that of the gain.
    """
    gain = np.asarray(gain, np.float64)
    moved, wanted = (
        coefficients(values)[..., 1 : len(gain) + 1]
        for values in (found.solution.values[-1] - without.solution.values[-1], found.target.values)
    )
    expected = wanted / gain
    weight = np.abs(expected) ** 2 / (np.abs(expected) ** 2).sum()
    shift = over_replicates((moved * expected.conj()).real.sum(-1) / (np.abs(expected) ** 2).sum())
    of_gain = shift.value * np.sqrt(((weight * gain_error / gain) ** 2).sum())
    return replace(shift, standard_error=float(np.hypot(shift.standard_error, of_gain)), of="chains")


def _jackknife(statistic: Callable[[NDArray], float], values: NDArray, axis: int = 0, of: str = "networks") -> Estimate:
    count = values.shape[axis]
    without = np.array([statistic(np.delete(values, r, axis)) for r in range(count)])
    error = np.sqrt((count - 1) * without.var())
    return Estimate(statistic(values), float(error), count - 1, count, of=of)
