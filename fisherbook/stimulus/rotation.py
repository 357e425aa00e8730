"""Rotation of images: exactly, by their Fourier series over the polar angle, or bilinearly, as torchvision does."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_RING_SPACING = 0.5  # px

#: The rotations of an image, by name.
ROTATIONS = {
    "harmonic": "phase multiplication of the polar Fourier series: exact, the same at every angle",
    "bilinear": "bilinear resampling of the pixels, as torchvision's rotate: blurs by what depends on the angle",
}


def polar_spectrum(images: Tensor) -> Tensor:
    """Resample images on a polar grid and take the Fourier series over the polar angle.

    Parameters
    ----------
    images : Tensor, float32, shape (face, channel, size, size)

    Returns
    -------
    Tensor, complex64, shape (face, channel, ring, order)
        Coefficients c_m(r) of Re Σ_m c_m(r) exp(i m φ), rings half a pixel apart from the centre to the aperture's
        rim, orders 0 to size; φ is measured counter-clockwise from the right.
    """
    size = images.shape[-1]
    radius = torch.arange(rings(size), dtype=torch.float64) * _RING_SPACING
    phi = torch.arange(4 * size, dtype=torch.float64) * (2 * torch.pi / (4 * size))
    points = torch.stack([radius[:, None] * phi.cos(), -radius[:, None] * phi.sin()], -1)  # x right, y down
    points = (points / ((size - 1) / 2)).float()
    spectrum = torch.empty(*images.shape[:2], rings(size), size + 1, dtype=torch.complex64)
    for block, found in zip(images.split(64), spectrum.split(64), strict=True):
        polar = torch.nn.functional.grid_sample(
            block, points.expand(len(block), *points.shape), "bicubic", "border", align_corners=True
        )
        found.copy_(torch.fft.rfft(polar, norm="forward")[..., : size + 1])
    spectrum[..., 1:] *= 2
    return spectrum


class Harmonic:
    """Synthesis of aperture pixels from the polar spectrum, ring interval by ring interval.

    Between two neighbouring rings the image is interpolated linearly in the radius, and its Fourier series is evaluated
    at each pixel's own polar angle. Sorted by radius, the pixels of one interval need two rings only: one small matrix
    product an interval, and no interpolation over the polar angle.
    """

    def __init__(self, spectrum: Tensor, size: int, dtype: torch.dtype, device: str) -> None:
        _, x, y = aperture(size)
        radius, phi = np.hypot(x, y) / _RING_SPACING, np.arctan2(y, x)
        orders = np.arange(spectrum.shape[-1])
        interval = np.minimum(radius.astype(int), spectrum.shape[2] - 2)
        self.orders = torch.from_numpy(orders).to(device)
        self.dtype = dtype
        self.shape = spectrum.shape[2], 2 * len(orders)
        self.spectrum = torch.view_as_real(spectrum).to(device)
        self.blocks = []
        for ring in range(spectrum.shape[2] - 1):
            inside = np.flatnonzero(interval == ring)
            if len(inside):
                # Re(c exp(i m phi)) = Re(c) cos(m phi) - Im(c) sin(m phi)
                wave = np.exp(-1j * orders * phi[inside, None]).view(np.float64)
                outer = (radius[inside] - ring)[:, None]
                block = np.concatenate([(1 - outer) * wave, outer * wave], 1).T
                self.blocks.append((ring, inside[0], inside[-1] + 1, torch.from_numpy(block).to(device, dtype)))
        self.n_pixels = len(x)

    def pixels(self, faces: Tensor, angles: Tensor, tangents: bool) -> Tensor:
        """Return pixels, or their derivatives (rad⁻¹), (pair, channel, pixel), of pairs of face and angle."""
        phase = torch.exp(-1j * angles[:, None] * self.orders)
        if tangents:
            phase = phase * (-1j * self.orders)
        spectrum = torch.view_as_complex(self.spectrum[faces].to(self.dtype))
        return self.synthesise(spectrum * phase.to(spectrum.dtype)[:, None, None, :])

    def product(self, faces: Tensor, angles: Tensor, tangents: bool) -> Tensor:
        """Return the same, (angle, face, channel, pixel), of every face at every angle."""
        pairs = torch.cartesian_prod(torch.arange(len(angles), device=faces.device), faces).reshape(-1, 2)
        return self.pixels(pairs[:, 1], angles[pairs[:, 0]], tangents).unflatten(0, (len(angles), len(faces)))

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """Return pixels (pair, channel, pixel) of spectra (pair, channel, ring, M + 1)."""
        real = torch.view_as_real(spectrum).flatten(-2).flatten(0, 1)  # (pair x channel, ring, 2 (M + 1))
        values = real.new_empty(len(real), self.n_pixels)
        for ring, first, last, block in self.blocks:
            torch.mm(real[:, ring : ring + 2].flatten(1), block, out=values[:, first:last])
        return values.unflatten(0, (len(spectrum), -1))

    def adjoint(self, weights: Tensor) -> Tensor:
        """Carry weights (..., pixel) over to the polar spectrum, (..., ring, M + 1)."""
        projected = weights.new_zeros(*weights.shape[:-1], *self.shape, dtype=self.dtype)
        for ring, first, last, block in self.blocks:
            part = weights[..., first:last].to(self.dtype) @ block.T
            projected[..., ring : ring + 2, :] += part.unflatten(-1, (2, -1))
        # Σ Re(c) a + Im(c) b = Re(c (a - i b))
        return torch.view_as_complex(projected.unflatten(-1, (-1, 2)).contiguous()).conj()


class Bilinear:
    """Bilinear sampling of the turned pixel grid, by gathering four neighbours, with its exact derivative."""

    def __init__(self, images: Tensor, dtype: torch.dtype, device: str) -> None:
        _, x, y = aperture(images.shape[-1])
        self.x, self.y = (torch.from_numpy(v).to(device) for v in (x, y))
        self.size = images.shape[-1]
        self.images = images.flatten(2).to(device, dtype)

    def pixels(self, faces: Tensor, angles: Tensor, tangents: bool) -> Tensor:
        """Return pixels, or their derivatives (rad⁻¹), (pair, channel, pixel), of pairs of face and angle."""
        corner, *where = (v[:, None] for v in self._where(angles))
        corner, upright = corner.expand(-1, self.images.shape[1], -1), self.images[faces]
        corners = (upright.gather(2, corner + step) for step in (0, 1, self.size, self.size + 1))
        return self._interpolate(*corners, *where, tangents)

    def product(self, faces: Tensor, angles: Tensor, tangents: bool) -> Tensor:
        """Return the same, (angle, face, channel, pixel), of every face at every angle."""
        upright = self.images[faces]
        turned = []
        for corner, *where in zip(*self._where(angles), strict=True):
            corners = (upright[..., corner + step] for step in (0, 1, self.size, self.size + 1))
            turned.append(self._interpolate(*corners, *where, tangents))
        return torch.stack(turned)

    def _where(self, angles: Tensor) -> tuple[Tensor, ...]:
        """For every angle and pixel: the upper left neighbour, how far right and down of it, and x, y, upright."""
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        x, y = self.x * cos + self.y * sin, self.y * cos - self.x * sin
        column, row = x + (self.size - 1) / 2, (self.size - 1) / 2 - y
        left, top = column.floor().clamp(max=self.size - 2), row.floor().clamp(max=self.size - 2)
        corner = (top * self.size + left).long()
        return corner, *(v.to(self.images.dtype) for v in (column - left, row - top, x, y))

    @staticmethod
    def _interpolate(a: Tensor, b: Tensor, c: Tensor, d: Tensor, right: Tensor, down: Tensor, x: Tensor, y: Tensor,
                     tangents: bool) -> Tensor:  # fmt: skip
        if not tangents:
            return (1 - down) * ((1 - right) * a + right * b) + down * ((1 - right) * c + right * d)
        along_columns = (1 - down) * (b - a) + down * (d - c)
        along_rows = (1 - right) * (c - a) + right * (d - b)
        return along_columns * y + along_rows * x  # as the face turns, d column / dθ = y and d row / dθ = x


def rings(size: int) -> int:
    """Return the number of radii at which images of a size (px) are sampled."""
    return round((size / 2 - 1) / _RING_SPACING) + 1


@lru_cache(maxsize=8)
def aperture(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the aperture's pixels in order of their radius: flat indices, and x and y (px) from the centre."""
    # One pixel less than the inscribed circle, so that no rotation asks for a pixel outside the image.
    along = np.arange(size) - (size - 1) / 2
    x, y = (v.ravel() for v in np.meshgrid(along, -along))
    radius = np.hypot(x, y)
    inside = np.flatnonzero(radius <= size / 2 - 1)
    inside = inside[np.argsort(radius[inside], kind="stable")]
    return inside, x[inside], y[inside]
