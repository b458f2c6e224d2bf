import math

import torch

from lightning_gen.callbacks.pictures import interpolation_frames, interpolation_strip, slerp


class Identity:
    """Decodes a latent (N, 4) into a 1x2x2 image."""

    def sample_latents(self, num_samples: int, *, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(num_samples, 4, generator=generator)

    def decode(self, latents: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return latents.reshape(-1, 1, 2, 2)


def test_slerp_on_the_unit_circle_is_the_arc() -> None:
    start, end = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    weights = torch.tensor([0.0, 1 / 3, 0.5, 1.0])
    expected = [[math.cos(w * math.pi / 2), math.sin(w * math.pi / 2)] for w in weights.tolist()]
    assert torch.allclose(slerp(start, end, weights)[:, 0], torch.tensor(expected), atol=1e-6)


def test_slerp_keeps_the_norm_where_a_straight_line_would_lose_it() -> None:
    rng = torch.Generator().manual_seed(0)
    start, end = torch.randn(2, 8, 100, generator=rng)
    norms = slerp(start, end, torch.tensor([0.5]))[0].norm(dim=1)
    assert (norms / ((start.norm(dim=1) + end.norm(dim=1)) / 2)).sub(1).abs().max() < 0.1
    assert torch.lerp(start, end, 0.5).norm(dim=1).mean() < 0.8 * norms.mean()


def test_slerp_of_parallel_latents_is_a_straight_line() -> None:
    start = torch.tensor([[1.0, 1.0]])
    result = slerp(start, 3 * start, torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(result[:, 0], torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    assert slerp(start, start, torch.tensor([0.3])).isfinite().all()


def test_a_strip_starts_and_ends_at_its_latents() -> None:
    latents = torch.tensor([[-1.0, 0, 0, 0], [0.0, 1, 0, 0], [0.0, 0, 1, 0], [0.0, 0, 0, -1]])
    strip = interpolation_strip(Identity(), latents, steps=3)
    assert strip.shape == (1, 2 * 2 + 1, 3 * 2 + 2)
    assert strip[0, :2, :2].tolist() == [[0, 128], [128, 128]]
    assert strip[0, 3:, 6:].tolist() == [[128, 128], [128, 0]]


def test_the_frames_visit_every_latent_and_close_the_loop() -> None:
    latents = torch.eye(4)
    frames = interpolation_frames(Identity(), latents, frames=12)
    assert frames.shape == (12, 1, 2, 2)
    brightest = frames[::3].flatten(1).argmax(1)
    assert brightest.tolist() == [0, 1, 2, 3]
    assert frames[11].flatten()[0] > frames[10].flatten()[0]
