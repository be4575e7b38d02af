"""Output head and cross-entropy against float64, for any upstream gradient, in chunks of any size."""

from __future__ import annotations

import math

import pytest
import torch
from oracle import DEVICE, DTYPES, TINY, error, random
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tunebook_kernels import (
    Head,
    can_launch,
    gradient_scale,
    linear_cross_entropy,
    linear_cross_entropy_backward,
    linear_cross_entropy_forward,
    linear_cross_entropy_reference,
    tokens_per_chunk,
)

VARIANTS = {
    "plain": {},
    "softcap": {"softcap": 3.0},
    "scale": {"logit_scale": 0.25},
    "smoothing": {"label_smoothing": 0.1},
    "all": {"softcap": 5.0, "logit_scale": 1.5, "label_smoothing": 0.2, "ignore_index": 0},
}


def batch(tokens: int, vocabulary: int, dtype: torch.dtype, *, ignored: int = -100, seed: int = 0):
    """Hidden states, a weight whose logits have a deviation of about 2.4, labels a third ignored."""
    hidden, weight = random((tokens, 24), dtype, seed), random((vocabulary, 24), dtype, seed + 1)
    generator = torch.Generator().manual_seed(seed + 2)
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator).to(DEVICE)
    labels[::3] = ignored
    return hidden, weight * 0.5, labels


def exact(hidden, weight, labels, *, softcap=None, logit_scale=1.0, bias=None, **options):
    """Token losses in float64 by torch's own function; entropy and hits by their definitions."""
    logits = hidden.double() @ weight.double().t() * logit_scale
    if bias is not None:
        logits = logits + bias.double() * logit_scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    losses = F.cross_entropy(logits, labels, reduction="none", **options)
    entropy = torch.distributions.Categorical(logits=logits).entropy()
    labelled = labels != options.get("ignore_index", -100)
    return losses, entropy * labelled, (logits.argmax(-1) == labels) & labelled


def as_leaves(*tensors):
    return [tensor.detach().clone().requires_grad_() for tensor in tensors]


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_is_as_exact_as_all_logits_in_their_dtype_and_a_loss_in_float32(dtype, options):
    hidden, weight, labels = batch(23, 501, dtype, ignored=options.get("ignore_index", -100))
    (truth,) = as_leaves(hidden.double())
    losses, entropy, _ = exact(truth, weight, labels, **options)
    count = int((labels != options.get("ignore_index", -100)).sum())
    (true_gradient,) = torch.autograd.grad(losses.sum() / count, truth)
    errors = []
    for function in (linear_cross_entropy, linear_cross_entropy_reference):
        (leaf,) = as_leaves(hidden)
        result = function(leaf, weight, labels, **options)
        (gradient,) = torch.autograd.grad(result.loss, leaf)
        assert result.token_loss.dtype == torch.float32
        assert gradient.dtype == dtype
        errors.append(
            [
                error(result.loss.detach(), losses.detach().sum() / count),
                error(result.token_loss.detach(), losses.detach()),
                error(gradient, true_gradient),
                error(result.entropy, entropy.detach()),
            ]
        )
    for mine, theirs in zip(*errors, strict=True):
        assert mine <= 1.1 * theirs + TINY[dtype]


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_any_upstream_gradient_of_the_token_losses_is_exact(dtype, options):
    hidden, weight, labels = batch(17, 130, dtype, ignored=options.get("ignore_index", -100))
    upstream = random((17,), dtype, 5)
    mine, truth = as_leaves(hidden, hidden.double())
    result = linear_cross_entropy(mine, weight, labels, divisor=7, **options)
    losses, _, correct = exact(truth, weight, labels, **options)
    (gradient,) = torch.autograd.grad(result.token_loss, mine, upstream)
    (expected,) = torch.autograd.grad(losses, truth, upstream.double())
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert error(gradient, expected) < tolerance
    assert error(result.loss.detach(), losses.detach().sum() / 7) < tolerance
    assert torch.equal(result.correct, correct)


@pytest.mark.parametrize("vocabulary", [1, 2, 513, 4096, 5003])
def test_any_size_of_vocabulary(vocabulary):
    hidden, weight, labels = batch(5, vocabulary, torch.float32)
    labels[1] = vocabulary - 1
    mine, truth = as_leaves(hidden, hidden.double())
    result = linear_cross_entropy(mine, weight, labels)
    losses, entropy, correct = exact(truth, weight, labels)
    result.token_loss.sum().backward()
    losses.sum().backward()
    torch.testing.assert_close(result.token_loss.detach().double(), losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mine.grad.double(), truth.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result.entropy.double(), entropy, rtol=1e-5, atol=1e-5)
    assert torch.equal(result.correct, correct)


@pytest.mark.parametrize("chunk", [1, 4, 11, 12, 100, None])
def test_chunks_change_nothing(chunk):
    hidden, weight, labels = batch(12, 70, torch.float32)
    (leaf,) = as_leaves(hidden)
    result = linear_cross_entropy(leaf, weight, labels, chunk=chunk)
    (whole,) = as_leaves(hidden)
    expected = linear_cross_entropy_reference(whole, weight, labels)
    result.loss.backward()
    expected.loss.backward()
    torch.testing.assert_close(result.token_loss, expected.token_loss)
    torch.testing.assert_close(leaf.grad, whole.grad)


def test_leading_dimensions_are_flattened():
    hidden, weight, labels = batch(12, 70, torch.float32)
    (leaf,) = as_leaves(hidden.view(3, 4, 24))
    result = linear_cross_entropy(leaf, weight, labels.view(3, 4))
    result.loss.backward()
    assert result.token_loss.shape == (12,)
    assert leaf.grad.shape == (3, 4, 24)
    torch.testing.assert_close(result, linear_cross_entropy_reference(leaf, weight, labels))


@pytest.mark.parametrize("keep", [None, [0, 3, 6]], ids=["all", "keep"])
def test_nothing_labelled_is_a_loss_of_zero(keep):
    hidden, weight, labels = batch(9, 70, torch.float32)
    if keep is None:
        labels = torch.full_like(labels, -100)
    else:
        keep = torch.tensor(keep, device=DEVICE)  # these are ignored
    (leaf,) = as_leaves(hidden)
    result = linear_cross_entropy(leaf, weight, labels, keep=keep)
    result.loss.backward()
    assert result.loss == 0
    assert not leaf.grad.any()
    assert not result.entropy.any()
    assert not result.correct.any()


def test_no_tokens_at_all():
    hidden, weight, labels = batch(9, 70, torch.float32)
    none = torch.empty(0, dtype=torch.int64, device=DEVICE)
    (leaf,) = as_leaves(hidden)
    result = linear_cross_entropy(leaf, weight, labels, keep=none)
    result.loss.backward()
    assert result.loss == 0
    assert not leaf.grad.any()
    assert linear_cross_entropy(hidden[:0], weight, labels[:0]).token_loss.shape == (0,)


@pytest.mark.parametrize("trainable", [False, True], ids=["frozen head", "trained head"])
@pytest.mark.parametrize("chunk", [2, None])
def test_kept_tokens_are_as_if_the_others_were_ignored(chunk, trainable):
    hidden, weight, labels = batch(14, 70, torch.float32)
    labels[0] = 3
    keep = torch.tensor([0, 1, 2, 7, 13], device=DEVICE)
    upstream = random((14,), torch.float32, 5)
    mine, truth = as_leaves(hidden, hidden)
    of_mine, of_truth = (weight.clone().requires_grad_(trainable) for _ in range(2))
    result = linear_cross_entropy(mine, of_mine, labels, keep=keep, chunk=chunk)
    expected = linear_cross_entropy_reference(truth, of_truth, labels, keep=keep)
    torch.testing.assert_close(result, expected)
    assert result.token_loss.count_nonzero() == (labels[keep] != -100).sum()
    result.token_loss.backward(upstream)
    expected.token_loss.backward(upstream)
    torch.testing.assert_close(mine.grad, truth.grad)
    torch.testing.assert_close(of_mine.grad, of_truth.grad)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_a_trained_head_gets_exact_gradients_too(options):
    ignored = options.get("ignore_index", -100)
    hidden, weight, labels = batch(13, 70, torch.float32, ignored=ignored)
    bias, upstream = random((70,), torch.float32, 4), random((13,), torch.float32, 5)
    leaves = as_leaves(hidden, weight, bias)
    result = linear_cross_entropy(
        *leaves[:2], labels, bias=leaves[2], chunk=5, **options
    )  # in three chunks
    gradients = torch.autograd.grad(result.token_loss, leaves, upstream)
    wide = as_leaves(hidden.double(), weight.double(), bias.double())
    losses, _, correct = exact(*wide[:2], labels, bias=wide[2], **options)
    expected = torch.autograd.grad(losses, wide, upstream.double())
    assert torch.equal(result.correct, correct)
    for gradient, truth in zip(gradients, expected, strict=True):
        assert error(gradient, truth) < 2e-6


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_only_what_requires_a_gradient_gets_one(frozen):
    hidden, weight, labels = batch(6, 70, torch.float32)
    leaves = as_leaves(hidden, weight, random((70,), torch.float32, 4))
    leaves[frozen].requires_grad_(False)
    linear_cross_entropy(*leaves[:2], labels, bias=leaves[2]).loss.backward()
    assert [leaf.grad is None for leaf in leaves] == [i == frozen for i in range(3)]


@pytest.mark.parametrize("divisor", [4, 2.5, torch.tensor(9), torch.tensor([9.0])], ids=str)
def test_the_divisor_is_a_number_or_a_tensor_of_one(divisor):
    hidden, weight, labels = batch(8, 70, torch.float32)
    (leaf,) = as_leaves(hidden)
    placed = divisor.to(DEVICE) if isinstance(divisor, torch.Tensor) else divisor
    result = linear_cross_entropy(leaf, weight, labels, divisor=placed)
    assert result.loss.shape == ()
    torch.testing.assert_close(result.loss, result.token_loss.sum() / float(divisor))
    (gradient,) = torch.autograd.grad(result.loss, leaf, retain_graph=True)
    (again,) = torch.autograd.grad(result.token_loss.sum(), leaf)
    torch.testing.assert_close(gradient * float(divisor), again)


@pytest.mark.parametrize("gap", [15.0, 25.0, 60.0])
def test_a_tiny_loss_keeps_its_digits(gap):
    """One logit is far above three others: float32 would make exp(-gap) of 1 + exp(-gap) nothing."""
    weight = torch.tensor([[gap + 30.0], [30.0], [30.0], [30.0]], device=DEVICE)
    hidden = torch.ones((1, 1), device=DEVICE, requires_grad=True)
    result = linear_cross_entropy(hidden, weight, torch.zeros(1, dtype=torch.int64, device=DEVICE))
    tail = 3 * math.exp(-gap)
    assert result.loss.item() == pytest.approx(math.log1p(tail), rel=1e-4)
    assert result.entropy.item() == pytest.approx(tail * (1 + gap), rel=1e-3)
    result.loss.backward()
    assert hidden.grad.item() == pytest.approx(-tail * gap, rel=1e-4)


def test_extreme_logits_stay_finite():
    weight = torch.tensor([[1e4], [-1e4], [0.0]], device=DEVICE)
    hidden = torch.tensor([[1.0], [-1.0], [300.0]], device=DEVICE, requires_grad=True)
    result = linear_cross_entropy(hidden, weight, torch.tensor([1, 1, 0], device=DEVICE))
    result.loss.backward()
    expected = torch.tensor([2e4, 0.0, 0.0], device=DEVICE)
    torch.testing.assert_close(result.token_loss.detach(), expected)
    assert result.correct.tolist() == [False, True, True]
    assert torch.isfinite(hidden.grad).all()
    assert not result.entropy.any()


def test_a_label_outside_the_vocabulary_is_never_a_number():
    hidden, weight, labels = batch(5, 50, torch.float32)
    labels[1] = 50
    if can_launch(hidden):
        assert linear_cross_entropy(hidden, weight, labels).token_loss.isnan().tolist() == [
            False, True, False, False, False,
        ]  # fmt: skip
    else:
        with pytest.raises(RuntimeError, match="out of bounds"):
            linear_cross_entropy(hidden, weight, labels)


def test_of_equal_logits_the_first_counts():
    hidden = torch.ones((3, 1), device=DEVICE)
    weight = torch.tensor([[1.0], [2.0], [2.0], [2.0]], device=DEVICE)
    result = linear_cross_entropy(hidden, weight, torch.tensor([1, 2, 3], device=DEVICE))
    assert result.correct.tolist() == [True, False, False]
    peers = torch.ones((1, 300), device=DEVICE)
    uniform = linear_cross_entropy(hidden[:1], peers.t(), torch.tensor([299], device=DEVICE))
    assert uniform.entropy.item() == pytest.approx(math.log(300), rel=1e-6)


class Largest(TorchDispatchMode):
    """Records the most elements of any tensor made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_the_full_logits_are_never_held():
    hidden, weight, labels = batch(64, 500, torch.float32)
    (leaf,) = as_leaves(hidden)
    with Largest() as largest:
        linear_cross_entropy(leaf, weight, labels, chunk=8).loss.backward()
    assert 8 * 500 <= largest.elements < 64 * 500


def test_an_evaluation_makes_no_gradient():
    hidden, weight, labels = batch(10, 50, torch.float32)
    (leaf,) = as_leaves(hidden)
    with torch.no_grad():
        result = linear_cross_entropy(leaf, weight, labels)
    assert result.loss.grad_fn is None
    outcome, gradient = linear_cross_entropy_forward(hidden, weight, labels, Head())
    assert gradient is None
    torch.testing.assert_close(outcome.token_loss, result.token_loss)


def test_the_raw_functions_write_into_strided_buffers():
    hidden, weight, labels = batch(10, 50, torch.float32)
    (leaf,) = as_leaves(hidden)
    scale = gradient_scale(torch.tensor(7.0, device=DEVICE))
    buffer = torch.full((10, 40), 9.0, device=DEVICE)
    outcome, gradient = linear_cross_entropy_forward(
        hidden, weight, labels, Head(), scale=scale, out=buffer[:, :24], chunk=3
    )
    upstream = random((10,), torch.float32, 5)
    linear_cross_entropy_backward(upstream, gradient, scale, out=buffer[:, :24])
    expected = linear_cross_entropy_reference(leaf, weight, labels)
    expected.token_loss.backward(upstream)
    torch.testing.assert_close(outcome.token_loss, expected.token_loss.detach())
    torch.testing.assert_close(buffer[:, :24], leaf.grad)
    assert (buffer[:, 24:] == 9.0).all()


def test_wide_hidden_states_meet_a_narrow_head():
    hidden, weight, labels = batch(10, 50, torch.float16)
    (leaf,) = as_leaves(hidden.float())
    linear_cross_entropy(leaf, weight, labels).loss.backward()
    (narrow,) = as_leaves(hidden)
    linear_cross_entropy(narrow, weight, labels).loss.backward()
    assert leaf.grad.dtype == torch.float32
    torch.testing.assert_close(leaf.grad.half(), narrow.grad)


def test_autocast_changes_nothing():
    hidden, weight, labels = batch(10, 50, torch.float32)
    plain, cast = as_leaves(hidden, hidden)
    expected = linear_cross_entropy(plain, weight, labels)
    expected.loss.backward()
    with torch.autocast(DEVICE, torch.bfloat16):
        result = linear_cross_entropy(cast, weight, labels)
    result.loss.backward()
    torch.testing.assert_close(result, expected, rtol=0, atol=0)
    torch.testing.assert_close(cast.grad, plain.grad, rtol=0, atol=0)


def test_chunks_are_large_on_a_gpu_and_small_on_a_cpu():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert tokens_per_chunk(128_256, torch.bfloat16, gpu) == 2048  # 501 MiB
    assert tokens_per_chunk(262_144, torch.float32, gpu) == 1024
    assert tokens_per_chunk(49_152, torch.float32, cpu) * 49_152 * 4 <= 2**25
