"""The codebook: hand-computed moving averages, restarts, gradients, and equality under several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed

from lightning_gen.errors import UserError
from lightning_gen.networks.vector_quantizer import VectorQuantizer
from tests.conftest import forked


def quantizer(codes: list[list[float]], decay: float = 0.9, restart_below: float = 0.0) -> VectorQuantizer:
    found = VectorQuantizer(len(codes), len(codes[0]), decay, restart_below)
    found.codes.copy_(torch.tensor(codes))
    found.sums.copy_(torch.tensor(codes))
    return found


def maps(vectors: list[list[float]]) -> Tensor:
    """Vectors as maps (1, D, 1, M)."""
    return torch.tensor(vectors).T[None, :, None]


def test_every_vector_gets_its_nearest_code() -> None:
    torch.manual_seed(0)
    found = VectorQuantizer(20, 4)
    found.codes.normal_()
    vectors = torch.randn(3, 4, 2, 5)
    quantized = found.eval()(vectors)
    distances = torch.cdist(vectors.movedim(1, -1).reshape(-1, 4), found.codes)
    assert torch.equal(quantized.indices.flatten(), distances.argmin(1))
    torch.testing.assert_close(quantized.vectors.movedim(1, -1), found.codes[quantized.indices])
    assert float(quantized.commitment) == pytest.approx(float((distances.amin(1) ** 2).mean() / 4), rel=1e-5)


def test_two_updates_are_those_computed_by_hand() -> None:
    found = quantizer([[0.0, 0.0], [10.0, 0.0], [50.0, 50.0]])
    found.train()
    found(maps([[1.0, 1.0], [3.0, -1.0], [8.0, 4.0]]))
    # sizes: 0.9 * 1 + 0.1 * (2, 1, 0); sums: 0.9 * codes + 0.1 * ((4, 0), (8, 4), (0, 0))
    torch.testing.assert_close(found.sizes, torch.tensor([1.1, 1.0, 0.9]))
    torch.testing.assert_close(found.sums, torch.tensor([[0.4, 0.0], [9.8, 0.4], [45.0, 45.0]]))
    torch.testing.assert_close(found.codes, torch.tensor([[0.4 / 1.1, 0.0], [9.8, 0.4], [50.0, 50.0]]))
    found(maps([[0.0, 2.0]]))
    torch.testing.assert_close(found.sizes, torch.tensor([1.09, 0.9, 0.81]))
    torch.testing.assert_close(found.sums[0], torch.tensor([0.36, 0.2]))
    torch.testing.assert_close(found.codes[0], torch.tensor([0.36 / 1.09, 0.2 / 1.09]))
    torch.testing.assert_close(found.codes[1:], torch.tensor([[9.8, 0.4], [50.0, 50.0]]), msg="unused codes stay")


def test_a_code_that_nothing_chooses_stays_for_ever() -> None:
    found = quantizer([[0.0], [7.0]], decay=0.5).train()
    for _ in range(200):
        found(maps([[1.0]]))
    assert found.sizes[1] < 1e-30
    torch.testing.assert_close(found.codes, torch.tensor([[1.0], [7.0]]))


def test_a_code_chosen_too_rarely_moves_to_a_vector_of_the_batch() -> None:
    found = quantizer([[0.0], [100.0]], decay=0.5, restart_below=0.3).train()
    vectors = maps([[1.0], [2.0], [4.0]])
    found(vectors)
    assert found.codes[1] == 100, "its size is 0.5"
    found(vectors)
    assert float(found.codes[1]) in (1.0, 2.0, 4.0)
    assert found.sizes[1] == 1
    assert found.sums[1] == found.codes[1]


def test_evaluation_changes_no_code() -> None:
    found = quantizer([[0.0], [100.0]], decay=0.5, restart_below=2.0).eval()
    before = {name: buffer.clone() for name, buffer in found.named_buffers()}
    found(maps([[1.0], [2.0]]))
    assert all(torch.equal(before[name], buffer) for name, buffer in found.named_buffers())


def test_gradients_pass_straight_through_and_the_commitment_pulls_vectors_to_their_codes() -> None:
    found = quantizer([[0.0], [10.0]]).eval()
    vectors = maps([[1.0], [7.0]]).requires_grad_()
    quantized = found(vectors)
    assert quantized.vectors.flatten().tolist() == [0.0, 10.0]
    weight = torch.tensor([2.0, -3.0]).view(1, 1, 1, 2)
    (gradient,) = torch.autograd.grad((quantized.vectors * weight).sum(), vectors, retain_graph=True)
    assert torch.equal(gradient, weight)
    (gradient,) = torch.autograd.grad(quantized.commitment, vectors)
    assert gradient.flatten().tolist() == pytest.approx([1.0, -3.0])
    assert not list(found.parameters())


def test_the_commitment_does_not_grow_with_batch_or_map() -> None:
    torch.manual_seed(0)
    found = VectorQuantizer(8, 4).eval()
    vectors = torch.randn(2, 4, 3, 3)
    single = found(vectors).commitment
    torch.testing.assert_close(found(vectors.repeat(5, 1, 2, 2)).commitment, single)


def test_perplexity_counts_the_codes_in_use() -> None:
    found = quantizer([[0.0], [10.0], [20.0]]).eval()
    assert float(found(maps([[0.0], [10.0]])).perplexity) == pytest.approx(2)
    assert float(found(maps([[0.0], [1.0]])).perplexity) == pytest.approx(1)


def follow_in(folder: str, rank: int, world_size: int) -> None:
    where = f"file://{folder}/rendezvous"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=world_size)
    found = quantizer(CODES, decay=0.5, restart_below=0.3).train()
    torch.manual_seed(rank)  # restarts would differ
    for step in range(2):
        found(batches()[step][rank::world_size])
    torch.save(dict(found.named_buffers()), Path(folder, f"{rank}.pt"))
    distributed.destroy_process_group()


CODES = [[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0], [90.0, 90.0]]


def batches() -> Tensor:
    return torch.randn(2, 4, 2, 2, 2, generator=torch.Generator().manual_seed(0))


def test_two_processes_keep_the_codebook_that_one_would_have_on_all_vectors(tmp_path: Path) -> None:
    processes = [forked(follow_in, str(tmp_path), rank, 2) for rank in range(2)]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = quantizer(CODES, decay=0.5, restart_below=0.0).train()
    for step in range(2):
        alone(batches()[step])
    torch.testing.assert_close(first["codes"][:3], alone.codes[:3])
    torch.testing.assert_close(first["sizes"][:3], alone.sizes[:3])
    assert first["codes"][3].abs().max() < 5, "the dead code moved, to the same vector on both"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codes": 1, "dim": 2}, r"model\.num_codes=1"),
        ({"num_codes": 4, "dim": 2, "decay": 1.0}, r"model\.decay=1\.0"),
        ({"num_codes": 4, "dim": 2, "restart_below": -1.0}, r"model\.restart_below=-1\.0"),
    ],
)
def test_what_makes_no_codebook_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        VectorQuantizer(**options)  # type: ignore[arg-type]
