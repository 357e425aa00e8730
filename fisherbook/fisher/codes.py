"""Population codes whose Fisher information is known on paper, and their simulated activity."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, poisson
from torch import Tensor

from .. import angles as circle
from .. import checks
from ..derivative import along

Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Code:
    """A population code: how an angle and a face's latent variables make a response.

    Attributes
    ----------
    name : str
    units, latents : int
    respond : callable
        Angle (scalar tensor, rad) and latents ``(..., latent)``, of mean 0 and variance 1, → ``(..., unit)``.
    information : callable
        Angle in rad → the ``linear``, ``full`` and, where there is a decoder, ``decoded`` information in
        rad^-2. The full one holds for normal latents.
    decode : callable, optional
        Responses ``(..., unit)`` → the estimated angle ``(...)`` in rad.
    differentiable : bool
        Whether single responses have a derivative.
    """

    name: str
    units: int
    latents: int
    respond: Callable[[Tensor, Tensor], Tensor]
    information: Callable[[float], dict[str, float]]
    decode: Callable[[Tensor], Tensor] | None = None
    differentiable: bool = True


def gaussian_code(
    units: int = 10, information: float = 100.0, covariance: ArrayLike | None = None, slope_noise: float = 1.0
) -> Code:
    """Return a linear-Gaussian code: the same covariance and the same information at every angle.

    Parameters
    ----------
    units : int
        At least 2.
    information : float
        rad^-2.
    covariance : array_like, shape (unit, unit), optional
        Of the responses; the identity by default.
    slope_noise : float
        Standard deviation of a face's slope, in units of that of its response (rad^-1).
    """
    root = torch.eye(checks.whole_number("units", units, 2), dtype=torch.float64)
    if covariance is not None:
        root = torch.linalg.cholesky(torch.as_tensor(np.asarray(covariance, np.float64)))
        checks.same_length(units=units, covariance=len(root))

    def mean(a: Tensor) -> Tensor:
        return information**0.5 * (a.cos() * root[:, 0] + a.sin() * root[:, 1])

    def loading(a: Tensor) -> Tensor:
        return torch.cat([(slope_noise * a).cos() * root, (slope_noise * a).sin() * root], 1)

    return _normal("gaussian", mean, loading)


def tuning_code(units: int = 10, peak: float = 5.0, width: float = 0.7, modulation: float = 1.0) -> Code:
    """Return Gaussian responses of tuned units whose noise is tuned too, so that the trace term matters.

    Parameters
    ----------
    units : int
        With preferred angles evenly on the circle.
    peak : float
        Of the mean responses, in units of the noise.
    width : float
        Of the tuning, in rad.
    modulation : float
        Of the logarithm of the noise's variance over angles; 0 for constant noise.
    """
    preferred = torch.as_tensor(circle.grid(units))

    def mean(a: Tensor) -> Tensor:
        return peak * ((torch.cos(a - preferred) - 1) / width**2).exp()

    def loading(a: Tensor) -> Tensor:
        return (modulation / 2 * torch.cos(a - preferred)).exp().diag()

    return _normal("tuning", mean, loading)


def poisson_code(units: int = 10, peak: float = 10.0, width: float = 0.7, baseline: float = 1.0) -> Code:
    """Return independent Poisson counts of tuned units; the information is sum f'^2 / f, all of it linear.

    Parameters
    ----------
    units : int
    peak, baseline : float
        Mean counts at and far from the preferred angle.
    width : float
        Of the tuning, in rad.
    """
    preferred = torch.as_tensor(circle.grid(units))

    def rate(a: Tensor) -> Tensor:
        return baseline + (peak - baseline) * ((torch.cos(a - preferred) - 1) / width**2).exp()

    def respond(a: Tensor, latents: Tensor) -> Tensor:
        return torch.as_tensor(poisson.ppf(norm.cdf(latents.numpy()), rate(a).numpy()))

    def information(angle: float) -> dict[str, float]:
        f, slope = _with_slope(rate, angle)
        return dict.fromkeys(("linear", "full"), float((slope**2 / f).sum()))

    return Code("poisson", units, units, respond, information, differentiable=False)


NOISES = ("common", "differential", "gain", "counts", "turning")


def population_code(units: int = 20, noise: str = "common", seed: int = 0) -> Code:
    """Return a recorded population: tuned units of unequal tuning, with one of the noises that are published.

    Parameters
    ----------
    units : int
    noise : {"common", "differential", "gain", "counts", "turning"}
        ``common``: one correlation matrix at all angles, of limited range, with variances proportional to the
        means. ``differential``: the same, and noise along the mean's slope, which looks like a change of the
        angle and halves the information. ``gain``: the same, and a gain common to all units (coefficient of
        variation 0.25). ``counts``: Poisson counts under such a gain. ``turning``: the strongest modes of the
        noise turn with the angle, one of them against the signal, so that they hide it at some angles.
    seed : int
        Of the units' preferences, peaks, widths and Fano factors.

    References
    ----------
    Moreno-Bote et al. (2014), Nat Neurosci 17: 1410, for differential correlations; Goris, Movshon and
    Simoncelli (2014), Nat Neurosci 17: 858, for the gain.
    """
    checks.one_of("noise", noise, NOISES)
    random = np.random.default_rng(seed)
    spread = 2 * np.pi / checks.whole_number("units", units, 2)
    drawn = [circle.grid(units) + spread * random.uniform(-0.5, 0.5, units), *random.uniform(0.5, 1.5, (3, units))]
    preferred, size, width, fano = map(torch.as_tensor, drawn)

    def mean(a: Tensor) -> Tensor:
        return 2 + 12 * size * (1.5 * width * (torch.cos(a - preferred) - 1)).exp()

    def slope(a: Tensor) -> Tensor:
        return -1.5 * width * torch.sin(a - preferred) * (mean(a) - 2)

    apart = torch.cos(preferred[:, None] - preferred)
    correlation = 0.1 * (apart - 1).exp() + 0.9 * torch.eye(units, dtype=torch.float64)
    root = torch.linalg.cholesky(correlation)

    def loading(a: Tensor) -> Tensor:
        own = (fano * mean(a)).sqrt()
        if noise == "turning":
            modes = [torch.cos(preferred + a), torch.cos(2 * preferred - a)]
            return own[:, None] * torch.cat([root, 0.3 * torch.stack(modes, 1)], 1)
        shared = {"common": 0 * own, "differential": halving * slope(a), "gain": 0.25 * mean(a)}[noise]
        return torch.cat([own[:, None] * root, shared[:, None]], 1)

    white = [torch.linalg.solve(root, slope(a) / (fano * mean(a)).sqrt()) for a in torch.as_tensor(circle.grid(36))]
    halving = torch.stack(white).square().sum(1).mean() ** -0.5
    if noise != "counts":
        return _normal(noise, mean, loading)

    def counts(a: Tensor, latents: Tensor) -> Tensor:
        rate = mean(a) * (1 + 0.25 * latents[..., -1:]).clamp(min=0.02)
        return torch.as_tensor(poisson.ppf(norm.cdf(latents[..., :-1].numpy()), rate.numpy()))

    def information(angle: float) -> dict[str, float]:
        f, change = mean(torch.as_tensor(angle)), slope(torch.as_tensor(angle))
        covariance = f.diag() + 0.0625 * f[:, None] * f
        return {"linear": float(change @ torch.linalg.solve(covariance, change))}

    return Code(noise, units, units + 1, counts, information, differentiable=False)


def curved_code(spread: float = 0.3, radial: float = 0.2) -> Code:
    """Return a code of two units like a network's own output: normal noise of the angle and of the radius.

    Parameters
    ----------
    spread : float
        Standard deviation of the encoded angle, in rad.
    radial : float
        Standard deviation of the radius, whose mean is 1.

    Notes
    -----
    The full information and that of the decoded angle are 1 / spread^2; the linear one is less, since the
    responses lie on an arc.
    """

    def respond(a: Tensor, latents: Tensor) -> Tensor:
        angle = a + spread * latents[..., 0]
        return (1 + radial * latents[..., 1:]) * torch.stack([angle.cos(), angle.sin()], -1)

    def information(angle: float) -> dict[str, float]:
        across = (1 + radial**2) * (1 - np.exp(-2 * spread**2)) / 2
        linear = np.exp(-(spread**2)) / across
        return {"linear": linear, "full": spread**-2, "decoded": spread**-2}

    return Code("curved", 2, 2, respond, information, lambda r: torch.atan2(r[..., 1], r[..., 0]))


def _with_slope(curve: Curve, angle: float | Tensor) -> tuple[Tensor, Tensor]:
    one = torch.ones((), dtype=torch.float64)
    return along(curve, angle * one, one)


def _normal(name: str, mean: Curve, loading: Curve) -> Code:
    def information(angle: float) -> dict[str, float]:
        (_, slope), (root, bend) = _with_slope(mean, angle), _with_slope(loading, angle)
        covariance, change = root @ root.T, bend @ root.T + root @ bend.T
        linear = float(slope @ torch.linalg.solve(covariance, slope))
        ratio = torch.linalg.solve(covariance, change)
        return {"linear": linear, "full": linear + float((ratio @ ratio).trace()) / 2}

    units, latents = loading(torch.zeros((), dtype=torch.float64)).shape
    return Code(name, units, latents, lambda a, z: mean(a) + z @ loading(a).T, information)


@dataclass(frozen=True)
class CodeActivity:
    """Responses of a code, in the form that `estimate` takes; made by `simulate`."""

    code: Code
    angles: NDArray[np.float64]
    replicate: NDArray[np.int64]
    identity: NDArray[np.int64] | None
    attrs: dict[str, Any]
    latents: Tensor = field(repr=False)  # (replicate, face, latent)
    sides: tuple[Tensor, ...] = field(repr=False, default=())  # latents of their own of theta -/+ delta / 2

    def chunks(self, tangents: bool = True) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
        """Yield ``(slice over angles, responses, tangents)``, tensors (replicate, angle, face, unit)."""
        if tangents and not self.code.differentiable:
            raise ValueError(f"single responses of a {self.code.name} code have no derivative: compare two stimuli")
        for i, angle in enumerate(torch.as_tensor(self.angles)):
            if tangents:
                found = _with_slope(lambda a: self.code.respond(a, self.latents), angle)
            else:
                found = self.code.respond(angle, self.latents), None
            yield slice(i, i + 1), *(values if values is None else values.unsqueeze(1) for values in found)

    def shifted(self, offset: float) -> "CodeActivity":
        """Return the activity at ``angles + offset``: of the same faces, or partly others."""
        latents = self.sides[int(offset > 0)] if self.sides else self.latents
        return replace(self, angles=self.angles + offset, latents=latents)

    def decoded(self) -> "CodeActivity":
        """Return the estimated angle (rad) as the one unit."""
        if self.code.decode is None:
            raise ValueError(f"a {self.code.name} code has no decoder")
        respond, decode = self.code.respond, self.code.decode
        code = replace(self.code, units=1, respond=lambda a, z: decode(respond(a, z)).unsqueeze(-1))
        return replace(self, code=code)


def simulate(
    code: Code,
    angles: int | ArrayLike = 12,
    faces: int = 200,
    replicates: int = 1,
    *,
    faces_per_person: int = 1,
    correlation: float = 0.0,
    tails: float = np.inf,
    pairing: float = 1.0,
    seed: int | Sequence[int] = 0,
) -> CodeActivity:
    """Draw faces and let a code respond to them.

    Parameters
    ----------
    code : Code
    angles : int or array_like
        rad, or a number of them on the circle.
    faces, replicates : int
        Every replicate draws faces of its own.
    faces_per_person : int
    correlation : float
        Intraclass correlation of the latents of one person's faces.
    tails : float
        Degrees of freedom, above 2, of multivariate t latents; infinite for normal ones.
    pairing : float
        Correlation of the latents at theta - delta / 2 and theta + delta / 2: 1 for the same faces, 0 for
        independent ones.
    seed : int or sequence of int
    """
    each = checks.whole_number("faces_per_person", faces_per_person)
    if checks.whole_number("faces", faces, 2) % each:
        raise ValueError(f"faces must be a multiple of faces_per_person, not {faces} of {each}")
    checks.number("tails", tails, above=2, below=None)
    random = np.random.default_rng(seed)

    def draw(number: int) -> NDArray:
        shape = (replicates, faces // each, number)
        scale = 1.0
        if tails < np.inf:
            scale = np.sqrt((tails - 2) / random.chisquare(tails, (*shape, 1)))
        return random.standard_normal((*shape, code.latents)) * scale

    def latents() -> Tensor:
        own = draw(each)
        if correlation:
            own = correlation**0.5 * draw(1) + (1 - correlation) ** 0.5 * own
        return torch.as_tensor(own).flatten(1, 2)

    shared, sides = latents(), ()
    if pairing < 1:
        sides = tuple(pairing**0.5 * shared + (1 - pairing) ** 0.5 * latents() for _ in range(2))
    identity = np.broadcast_to(np.arange(faces) // each, (replicates, faces)) if each > 1 else None
    about = {"code": code.name}
    return CodeActivity(code, circle.as_angles(angles), np.arange(replicates), identity, about, shared, sides)


def draw_trials(code: Code, angles: ArrayLike, seed: int | Sequence[int] = 0) -> NDArray[np.float64]:
    """Draw one response ``(trial, unit)`` at each of `angles` (trial,), in rad, with noise of its own."""
    angles = circle.as_angles(angles)
    latents = torch.as_tensor(np.random.default_rng(seed).standard_normal((len(angles), code.latents)))
    responses = np.empty((len(angles), code.units))
    for angle in np.unique(angles):
        responses[angles == angle] = code.respond(torch.as_tensor(angle), latents[angles == angle])
    return responses
