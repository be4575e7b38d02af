"""The searches for scales that ggml's quantisers make, over many groups of weights at a time.

Weights lie as (groups, size, n): groups of `size` weights in each of n blocks, so that every
operation runs along n. The algorithms are those of ggml-quants.c (llama.cpp, MIT licence), named
as there; knows no format and no bytes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-15  # GROUP_MAX_EPS: a group whose largest weight is below it is zero


class Affine(NamedTuple):
    """x is near `scale * quant - minimum`; each (groups, n) but the quants (groups, size, n)."""

    scale: Tensor
    minimum: Tensor
    quants: Tensor | None


class Scaled(NamedTuple):
    """x is near `scale * quant`; (groups, n) and (groups, size, n), quants from -nmax to nmax-1."""

    scale: Tensor
    quants: Tensor | None


def make_qkx(
    x: Tensor,
    weights: Tensor,
    nmax: int,
    steps: tuple[float, float, int],
    *,
    absolute: bool = False,
    quants: bool = False,
) -> Affine:
    """Scale and minimum of each group that make the weighted error least, by trial.

    `make_qkx2_quants` and `make_qkx3_quants`, which differ in their steps only. The minimum of the
    best trial so far is where the next trial starts, as there.

    Args:
        x: (groups, size, n) float32.
        weights: (groups, size, n) float32, at least 0; used up.
        nmax: the largest quant.
        steps: first offset, distance and number of the trial scales `(offset + nmax) / span`.
        absolute: the error is |difference| instead of its square.
        quants: give the quants of the best trial too.
    """
    minimum, highest = x.amin(1).clamp_(max=0), x.amax(1)
    flat = highest <= minimum
    total = weights.sum(1)
    weights.div_(total[:, None])  # a group without weight is nan from here on, and no trial wins
    quant, product, spare = (torch.empty_like(x) for _ in range(3))
    mean = torch.mul(weights, x, out=product).sum(1).nan_to_num_(0)
    centred = x - mean[:, None]  # so that a trial's gain needs no terms that cancel

    def rounded(inverse: Tensor, minimum: Tensor, *, exact: bool) -> None:
        if exact:
            torch.sub(x, minimum[:, None], out=quant).mul_(inverse[:, None])
        else:
            start = (mean - minimum).mul_(inverse)
            torch.addcmul(start[:, None], centred, inverse[:, None], out=quant)
        quant.round_().clamp_(0, nmax)

    def sums() -> tuple[Tensor, Tensor, Tensor]:
        torch.mul(weights, quant, out=product)
        sum_l = product.sum(1)
        sum_l2 = torch.mul(product, quant, out=spare).sum(1)
        sum_xl = product.mul_(centred).sum(1)
        return sum_l, sum_l2, sum_xl

    def deviation(scale: Tensor, minimum: Tensor) -> Tensor:
        torch.addcmul(minimum[:, None], quant, scale[:, None], out=product)
        return product.sub_(x).abs_().mul_(weights).sum(1).neg_()

    inverse = over(nmax, highest - minimum)
    rounded(inverse, minimum, exact=True)
    scale = inverse.reciprocal()
    if absolute:
        best = deviation(scale, minimum)
    else:  # by how much the trial lowers the error below that of the mean alone
        sum_l, sum_l2, sum_xl = sums()
        low = minimum - mean
        best = scale * (2 * sum_xl - scale * sum_l2 - 2 * low * sum_l) - low * low
    chosen = (inverse, minimum.clone()) if quants else None
    first, distance, count = steps
    for levels in _levels(nmax, range(count + 1), distance, first):
        inverse = over(levels, highest - minimum)
        # where the largest weight lies between two quants the last bit decides
        rounded(inverse, minimum, exact=abs(levels % 1 - 0.5) < 1e-4)
        sum_l, sum_l2, sum_xl = sums()
        spread = torch.addcmul(sum_l2, sum_l, sum_l, value=-1).clamp_(min=1e-9)
        this_scale = sum_xl / spread
        this_minimum = torch.addcmul(mean, this_scale, sum_l, value=-1)
        above = this_minimum > 0
        constrained = x.is_cuda or bool(above.any())
        if constrained:  # the formats have no such minimum: it is 0 then
            through = torch.addcmul(sum_xl, mean, sum_l)
            slope = through / sum_l2
            torch.where(above, slope, this_scale, out=this_scale)
            this_minimum.clamp_(max=0)
        if absolute:
            gain = deviation(this_scale, this_minimum)
        else:
            gain = this_scale * sum_xl
            if constrained:
                torch.where(above, through * slope - mean * mean, gain, out=gain)
        better = gain > best
        torch.where(better, gain, best, out=best)
        torch.where(better, this_scale, scale, out=scale)
        if chosen:
            torch.where(better, inverse, chosen[0], out=chosen[0])
            torch.where(better, minimum, chosen[1], out=chosen[1])
        torch.where(better, this_minimum, minimum, out=minimum)
    scale.masked_fill_(flat, 0)
    if not chosen:
        return Affine(scale, minimum.neg_(), None)
    rounded(*chosen, exact=True)
    return Affine(scale, minimum.neg_(), quant.masked_fill_(flat[:, None], 0))


def make_qx(x: Tensor, weights: Tensor, nmax: int, *, quants: bool = False) -> Scaled:
    """Scale of each group, of either sign, that makes the weighted squared error least, by trial.

    `make_qx_quants` with `rmse_type` 1: the first trial maps the weight of largest magnitude to
    -nmax, 18 others map it beside that.

    Args:
        x: (groups, size, n) float32.
        weights: (groups, size, n) float32, at least 0, or what broadcasts to it.
        nmax: quants are from -nmax to nmax - 1.
        quants: give the quants of the best trial too.
    """
    extreme = signed_extreme(x)
    zero = extreme.abs() < TINY
    weighted = weights * x
    quant, product = torch.empty_like(x), torch.empty_like(x)

    def rounded(inverse: Tensor) -> None:
        torch.mul(x, inverse[:, None], out=quant).round_().clamp_(-nmax, nmax - 1)

    def fitted() -> tuple[Tensor, Tensor]:
        sum_xl = torch.mul(weighted, quant, out=product).sum(1)
        sum_l2 = torch.mul(quant, quant, out=product).mul_(weights).sum(1)
        scale = sum_xl / sum_l2
        return scale, sum_xl.mul_(scale)

    inverse = over(-nmax, extreme)
    rounded(inverse)
    scale, best = (value.nan_to_num_(0) for value in fitted())
    for levels in _levels(nmax, range(-9, 10), 0.1):
        trial = over(-levels, extreme)
        rounded(trial)
        this_scale, gain = fitted()
        better = gain > best
        torch.where(better, gain, best, out=best)
        torch.where(better, this_scale, scale, out=scale)
        if quants:
            torch.where(better, trial, inverse, out=inverse)
    scale.masked_fill_(zero, 0)
    if not quants:
        return Scaled(scale, None)
    rounded(inverse)
    return Scaled(scale, quant.masked_fill_(zero[:, None], -nmax))


def make_q3(x: Tensor, nmax: int) -> Tensor:
    """Scale of each group (groups, n), of either sign, by coordinate descent with weight x².

    `make_q3_quants`: five passes over the weights of a group, each moved to the best quant that
    the sums of the others leave it.

    Args:
        x: (groups, size, n) float32.
        nmax: quants are from -nmax to nmax - 1.
    """
    extreme = signed_extreme(x)
    zero = extreme.abs() < TINY
    weights = x * x
    weighted = weights * x
    quant = (x * over(-nmax, extreme)[:, None]).round_().clamp_(-nmax, nmax - 1)
    quant.masked_fill_(zero[:, None], 0)
    sum_xl, sum_l2 = (weighted * quant).sum(1), (weights * quant * quant).sum(1)
    _descend(x, weights, weighted, quant, sum_xl, sum_l2, (-nmax, nmax - 1))
    return torch.where(sum_l2 > 0, sum_xl / sum_l2, 0)


def make_qp(x: Tensor, weights: Tensor, nmax: int) -> tuple[Tensor, Tensor]:
    """Scale (groups, n) and quants (groups, size, n) from 0 to nmax of what is never negative.

    `make_qp_quants`, which ggml uses for the scales of a superblock: nine trial scales, then five
    passes of coordinate descent.

    Args:
        x: (groups, size, n) float32, at least 0.
        weights: (groups, size, n) float32, at least 0.
        nmax: the largest quant.
    """
    largest = x.amax(1).clamp_(min=0)
    zero = largest < TINY

    def error(inverse: Tensor) -> Tensor:
        quant = (x * inverse[:, None]).round_().clamp_(max=nmax)
        return (x - quant * inverse.reciprocal()[:, None]).square_().mul_(weights).sum(1)

    inverse = over(nmax, largest)
    least = error(inverse)
    for levels in _levels(nmax, range(-4, 5), 0.1):
        trial = over(levels, largest)
        found = error(trial)
        inverse = torch.where(found < least, trial, inverse)
        least = torch.minimum(least, found)
    quant = (x * inverse[:, None]).round_().clamp_(max=nmax).masked_fill_(zero[:, None], 0)
    weighted = weights * x
    sum_xl, sum_l2 = (weighted * quant).sum(1), (weights * quant * quant).sum(1)
    _descend(x, weights, weighted, quant, sum_xl, sum_l2, (0, nmax))
    return torch.where(sum_l2 > 0, sum_xl / sum_l2, 0), quant


def signed_extreme(x: Tensor) -> Tensor:
    """The weight of largest magnitude in each group, the first of equals: (groups, n)."""
    high, low = x.amax(1), x.amin(1)
    extreme = torch.where(high > -low, high, low)
    tied = high == -low
    if bool(tied.any()):  # few groups: argmax over all of them takes as long as all trials
        groups = x.transpose(1, 2)[tied]
        extreme[tied] = groups.gather(1, groups.abs().argmax(1, keepdim=True)).squeeze(1)
    return extreme


def over(number: float, x: Tensor) -> Tensor:
    """`number / x` rounded once; torch takes the reciprocal first, and the last bit can decide."""
    return torch.div(torch.tensor(number, dtype=x.dtype), x)


def _descend(
    x: Tensor,
    weights: Tensor,
    weighted: Tensor,
    quant: Tensor,
    sum_xl: Tensor,
    sum_l2: Tensor,
    limits: tuple[int, int],
) -> None:
    """Move one quant of each group after the other to where sum_xl² / sum_l2 is largest, in place."""
    for _ in range(5):
        before = quant.clone()
        for i in range(x.shape[1]):
            value, weight, product, old = x[:, i], weights[:, i], weighted[:, i], quant[:, i]
            rest_xl = torch.addcmul(sum_xl, product, old, value=-1)
            rest_l2 = torch.addcmul(sum_l2, weight * old, old, value=-1)
            new = (value * rest_l2).div_(rest_xl).round_().clamp_(*limits)
            open_ = (rest_xl > 0).logical_and_(rest_l2 > 0).logical_and_(new != old)
            rest_xl.addcmul_(product, new)
            rest_l2.addcmul_(weight * new, new)
            better = rest_xl * rest_xl * sum_l2 > sum_xl * sum_xl * rest_l2
            better.logical_and_(open_)
            torch.where(better, new, old, out=old)
            torch.where(better, rest_xl, sum_xl, out=sum_xl)
            torch.where(better, rest_l2, sum_l2, out=sum_l2)
        if not quant.is_cuda and torch.equal(quant, before):
            break


def _levels(nmax: int, steps: range, distance: float, first: float = 0) -> list[float]:
    """`first + distance * i + nmax` for each step i but 0 of a range around it, in float32 as in C."""
    exact = torch.tensor(steps, dtype=torch.float32)
    if steps.start < 0:
        exact = exact[exact != 0]
    return (first + distance * exact + nmax).tolist()
