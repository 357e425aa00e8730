import dataclasses

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import InterpolationMode, rotate

import fisherbook as fb
from fisherbook.stimulus.rotation import polar_spectrum


@pytest.fixture(scope="module")
def faces():
    return fb.load_faces("orl", size=64)


@pytest.fixture(scope="module", params=["harmonic", "bilinear"])
def stimulus(request, faces):
    return fb.Stimulus(faces, rotation=request.param)


@pytest.fixture(scope="module")
def harmonic(faces):
    return fb.Stimulus(faces)


def inside(stimulus, images):
    return images.flatten(-2)[..., stimulus.aperture]


def test_images_are_grey_outside_the_aperture_and_close_to_the_face_inside(stimulus, faces):
    images = stimulus.images([0.0], faces=[0, 7])
    assert images.shape == (1, 2, 1, 64, 64) and images.dtype == torch.float64
    outside = torch.ones(64 * 64, dtype=torch.bool)
    outside[stimulus.aperture] = False
    assert (images.flatten(-2)[..., outside] == 0.5).all()
    upright = inside(stimulus, torch.from_numpy(faces.images[[0, 7]]).double())
    assert (inside(stimulus, images[0]) - upright).square().mean().sqrt() < 0.03


@pytest.mark.slow
def test_the_speed_of_the_harmonic_stimulus_hardly_varies_with_the_angle(harmonic):
    speed = harmonic.speed(360, faces=range(0, 400, 10))
    assert speed.std() / speed.mean() < 0.005


def test_the_speed_of_the_bilinear_stimulus_dips_where_the_pixel_grids_agree(faces):
    at = np.deg2rad([0.01, 45.0])
    upright, oblique = fb.Stimulus(faces, rotation="bilinear").speed(at, faces=range(0, 400, 40))
    assert upright / oblique > 1.1 or upright / oblique < 0.9


def test_tangents_agree_with_central_differences(stimulus):
    at, step = np.array([-2.0, 0.3, 3.0]), 1e-6
    difference = (stimulus.images(at + step, faces=[3]) - stimulus.images(at - step, faces=[3])) / (2 * step)
    tangents = stimulus.tangents(at, faces=[3])
    # a bilinear image has kinks: a few pixels cross from one cell to the next within the step
    error = (difference - tangents).abs() / tangents.abs().max()
    assert error.quantile(0.999) < 1e-3
    if stimulus.rotation == "harmonic":
        assert error.max() < 1e-3


def test_bilinear_rotation_equals_torchvisions_inside_the_aperture(faces):
    stimulus = fb.Stimulus(faces, rotation="bilinear")
    for angle in (-2.5, -0.4, 0.0, 0.7, np.pi / 2, 3.1):
        theirs = rotate(torch.from_numpy(faces.images[:5]), float(np.rad2deg(angle)), InterpolationMode.BILINEAR)
        ours = stimulus.images([angle], faces=range(5))[0]
        assert (inside(stimulus, ours) - inside(stimulus, theirs.double())).abs().max() < 1e-5


def test_both_rotations_turn_the_same_way(faces):
    images = [fb.Stimulus(faces, rotation=r).images([0.7], faces=[5])[0, 0, 0] for r in ("harmonic", "bilinear")]
    assert (images[0] - images[1]).square().mean().sqrt() < 0.03


def test_rotations_compose_exactly_in_the_polar_spectrum(harmonic):
    orders = torch.arange(harmonic.orders + 1)
    spectrum = harmonic.spectrum[2]
    turned = spectrum * torch.exp(-0.4j * orders) * torch.exp(-1.1j * orders)
    assert torch.allclose(turned, spectrum * torch.exp(-1.5j * orders), atol=1e-14)
    # and what is synthesised from the turned spectrum is the turned image
    face = harmonic._operator(torch.float64, "cpu")
    once = face.synthesise((spectrum * torch.exp(-1.5j * orders))[None])
    assert torch.allclose(once[0], harmonic.pixels([2], [1.5])[0], atol=1e-12)


def test_a_full_turn_is_the_identity(stimulus):
    images = stimulus.images([0.4, 0.4 + 2 * np.pi], faces=[1])
    assert (images[0] - images[1]).abs().max() < 1e-12


def test_a_quarter_turn_is_the_rotated_array(harmonic):
    images = harmonic.images([0.3, 0.3 + np.pi / 2], faces=[9])
    assert torch.allclose(torch.rot90(images[0, 0, 0]), images[1, 0, 0], atol=1e-12)


def test_the_orders_kept_hold_the_energy_at_the_rim(faces, harmonic):
    rim = polar_spectrum(torch.from_numpy(faces.images))[:, 0, -4:, 1:].abs().square().sum((0, 1))
    assert 20 <= harmonic.orders <= 60
    assert rim[: harmonic.orders].sum() > 0.98 * rim.sum()


def test_projected_weights_give_the_layers_currents_without_an_image(harmonic):
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 1, len(harmonic.aperture), dtype=torch.float64, generator=generator)
    angles, indices = torch.tensor([0.2, -1.0], dtype=torch.float64), torch.tensor([0, 11])
    turned = (
        harmonic.spectrum[indices] * torch.exp(-1j * angles[:, None] * torch.arange(harmonic.orders + 1))[:, None, None]
    )
    without = torch.einsum("ucrm,fcrm->fu", harmonic.project(weights), turned).real
    with_images = torch.einsum("ucp,fcp->fu", weights, harmonic.pixels(indices, angles))
    assert torch.allclose(without, with_images, atol=1e-10)


def test_float32_images_agree_with_float64(stimulus):
    at = torch.linspace(-3, 3, 9, dtype=torch.float64)
    single = stimulus.pixels(torch.arange(9), at, dtype=torch.float32)
    assert (single - stimulus.pixels(torch.arange(9), at)).abs().max() < 1e-5


def test_gratings_have_the_information_of_the_closed_form():
    gratings = fb.load_faces("gratings", size=32, limit=4)
    stimulus = fb.Stimulus(gratings)
    images = stimulus.images([0.2, 0.2 - np.pi], faces=[0])
    assert (images[0] - images[1]).abs().max() < 1e-6 and stimulus.symmetry == 2


WAVE = (0.5, 2, 0.3)


@pytest.mark.parametrize("rotation", list(fb.ROTATIONS))
def test_noise_that_depends_on_the_angle_has_its_exact_derivative_and_known_strength(rotation):
    faces = fb.load_faces("orl", size=16, limit=50, noise=0.2)
    noisy, plain = fb.Stimulus(faces, rotation, 12, WAVE), fb.Stimulus(faces, rotation, 12)
    at, step = np.array([0.3, -1.2]), 1e-6
    slope = (noisy.images(at + step) - noisy.images(at - step)) / (2 * step)
    assert torch.allclose(noisy.tangents(at), slope, atol=1e-6)
    silent = fb.Stimulus(dataclasses.replace(faces, noise=None), rotation, 12).images(at)
    strength = ((noisy.images(at) - silent) / (plain.images(at) - silent))[..., 8, 8]
    assert np.allclose(strength[:, :, 0].numpy(), np.exp(0.5 * np.cos(2 * at + 0.3))[:, None], atol=1e-6)
    assert noisy.digest != plain.digest
    pairs = noisy.pixels(torch.tensor([1, 4]), torch.from_numpy(at))
    assert torch.allclose(pairs, noisy.part([1, 4]).product(torch.arange(2), torch.from_numpy(at))[[0, 1], [0, 1]])


def test_a_split_name_shows_the_faces_of_that_split(stimulus, faces):
    assert stimulus.images(2, faces="test").shape[1] == len(faces.split("test"))


def test_a_mask_shows_the_faces_that_are_true_in_it(stimulus):
    mask = np.arange(400) % 100 == 7
    assert torch.equal(stimulus.images(2, faces=mask), stimulus.images(2, faces=[7, 107, 207, 307]))
    assert torch.equal(stimulus.images(2, faces=mask.tolist()), stimulus.images(2, faces=torch.from_numpy(mask)))
    assert torch.equal(stimulus.part(mask).images(2), stimulus.images(2, faces=mask))


@pytest.mark.parametrize(
    "choice",
    [[], [0, -1], [400], [0.5], [[0], [1]], np.zeros(400, bool), np.ones(399, bool), np.ma.array([0, 1], mask=[0, 1])],
)
def test_a_choice_that_is_no_choice_of_these_faces_meets_one_sentence(harmonic, choice):
    sentence = "faces must be indices from 0 to 399, or 400 of True and False .*, the name of a split, or None, not"
    with pytest.raises(ValueError, match=sentence):
        harmonic.images([0.0], faces=choice)


def test_one_copy_of_the_spectrum_serves_all_precisions(faces):
    stimulus = fb.Stimulus(faces)
    held = [stimulus._operator(dtype, "cpu").spectrum for dtype in (torch.float32, torch.float64)]
    assert {spectrum.untyped_storage().data_ptr() for spectrum in held} == {
        stimulus._series.untyped_storage().data_ptr()
    }
    assert held[0].untyped_storage().nbytes() == 8 * np.prod(stimulus.spectrum.shape)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda f: fb.Stimulus(f, rotation="harmonics"),
            "rotation must be one of .* did you mean 'harmonic'",
        ),
        (lambda f: fb.Stimulus(f, noise_wave=WAVE), "noise_wave needs faces with noise"),
        (
            lambda f: fb.Stimulus(fb.load_faces("gratings", 16, limit=2), noise_wave=(np.nan, 2, 0.0)),
            "noise_wave must be three numbers, amplitude, order and phase, not",
        ),
        (
            lambda f: fb.Stimulus(fb.load_faces("gratings", 16, limit=2), noise_wave=(0.5, 3, 0.0)),
            "the order of noise_wave must be a multiple of the symmetry, 2",
        ),
        (lambda f: fb.Stimulus(f, orders=0), "orders must be a whole number of at least 1"),
        (lambda f: fb.Stimulus(f).images(4, faces=[400]), "faces must be indices from 0 to 399"),
    ],
)
def test_bad_stimuli_meet_one_sentence(faces, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(faces)
