"""The searches for scales that ggml's quantisers make, over many groups of weights at a time.

Weights lie as (groups, size, n): groups of `size` weights in each of n blocks, so that every
operation runs along n. The algorithms are those of ggml-quants.c (llama.cpp, MIT licence), named
as there; knows no format and no bytes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

TINY = 1e-15  # GROUP_MAX_EPS: a group whose largest weight is below it is zero
LEAST = 1e-37  # instead of 0 where it would divide


class Affine(NamedTuple):
    """x is near `scale * quant - minimum`; each (groups, n) but the quants (groups, size, n)."""

    scale: Tensor
    minimum: Tensor
    quants: Tensor | None


class Scaled(NamedTuple):
    """x is near `scale * (quant - nmax)`; (groups, n) and (groups, size, n), quants from 0."""

    scale: Tensor
    quants: Tensor | None


def make_qkx(
    x: Tensor,
    weights: Tensor,
    nmax: int,
    steps: tuple[float, float, int],
    *,
    measure: Literal["gain", "square", "absolute"] = "square",
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
        measure: what a trial is judged by: the squared or the absolute error, or the fall of the
            squared error in closed form, which takes a third less time and tells errors that
            differ by less than 1e-4 apart by chance.
        quants: give the quants of the best trial too.
    """
    minimum, highest = x.amin(1).clamp_(max=0), x.amax(1)
    flat = highest <= minimum
    highest = torch.where(flat, minimum + 1, highest)  # any span: all quants are 0
    trials = _AffineTrials(x, weights, nmax)
    inverse = over(nmax, highest - minimum)
    trials.round(inverse, minimum, exact=True)
    scale = inverse.reciprocal()
    best = (
        trials.gain(scale, minimum) if measure == "gain" else trials.error(scale, minimum, measure)
    )
    chosen = (inverse, minimum.clone()) if quants else None
    first, distance, count = steps
    for levels in _levels(nmax, range(count + 1), distance, first):
        inverse = over(levels, highest - minimum)
        # where the largest weight lies between two quants the last bit decides
        trials.round(inverse, minimum, exact=abs(float(levels) % 1 - 0.5) < 1e-4)
        this_scale, this_minimum, merit = trials.fit()
        if measure != "gain":
            merit = trials.error(this_scale, this_minimum, measure)
        better = is_above(merit, best)
        torch.maximum(merit, best, out=best)
        scale.lerp_(this_scale, better)
        if chosen:
            chosen[0].lerp_(inverse, better)
            chosen[1].lerp_(minimum, better)
        minimum.lerp_(this_minimum, better)
    scale.masked_fill_(flat, 0)
    if not chosen:
        return Affine(scale, minimum.neg_(), None)
    trials.round(*chosen, exact=True)
    return Affine(scale, minimum.neg_(), trials.quant.add_(trials.middle))


class _AffineTrials:
    """The least-squares fit x ~ scale * quant + minimum for one choice of quants after the other.

    Weights are made to sum to 1, x is taken from its mean and quants are counted from `middle`:
    the sums then need no terms that cancel.
    """

    def __init__(self, x: Tensor, weights: Tensor, nmax: int) -> None:
        self.x, self.nmax, self.middle = x, nmax, (nmax + 1) // 2
        self.quant, self.product, self.spare = (torch.empty_like(x) for _ in range(3))
        total = weights.sum(1, keepdim=True)
        if bool((total == 0).any()):  # where nothing matters every weight matters alike
            weights.add_((total == 0).float())
            total = weights.sum(1, keepdim=True)
        self.weights = weights.div_(total)
        self.mean = torch.mul(weights, x, out=self.product).sum(1)
        self.centred = x - self.mean[:, None]

    def round(self, inverse: Tensor, minimum: Tensor, *, exact: bool) -> None:
        """Set the quants to (x - minimum) * inverse, rounded; `exact` as C rounds on the way."""
        if exact:
            torch.sub(self.x, minimum[:, None], out=self.quant).mul_(inverse[:, None])
            self.quant.sub_(self.middle)
        else:
            start = (self.mean - minimum).mul_(inverse).sub_(self.middle)
            torch.addcmul(start[:, None], self.centred, inverse[:, None], out=self.quant)
        self.quant.round_().clamp_(-self.middle, self.nmax - self.middle)

    def fit(self) -> tuple[Tensor, Tensor, Tensor]:
        """The scale and the minimum, at most 0, that fit best, and their `gain`."""
        sum_l, sum_l2, sum_xl = self._sums()
        spread = torch.addcmul(sum_l2, sum_l, sum_l, value=-1)
        rounding = 1e-6 * self.nmax**2  # a spread below it is nothing but that
        torch.threshold_(spread, rounding, torch.inf)
        scale = sum_xl / spread
        minimum = torch.addcmul(self.mean, scale, sum_l.add_(self.middle), value=-1)
        gain = scale * sum_xl
        if minimum.is_cuda or bool(minimum.amax() > 0):  # no format has such a one: it is 0 then
            above = minimum > 0
            through = torch.addcmul(sum_xl, self.mean, sum_l)
            slope = through / torch.addcmul(spread, sum_l, sum_l)
            torch.where(above, slope, scale, out=scale)
            torch.where(above, through.mul_(slope) - self.mean * self.mean, gain, out=gain)
            minimum.clamp_(max=0)
        return scale, minimum, gain

    def gain(self, scale: Tensor, minimum: Tensor) -> Tensor:
        """By how much the squared error is below that of the mean alone: (groups, n)."""
        sum_l, sum_l2, sum_xl = self._sums()
        low = torch.add(minimum - self.mean, scale, alpha=self.middle)
        return scale * (2 * sum_xl - scale * sum_l2 - 2 * low * sum_l) - low * low

    def error(self, scale: Tensor, minimum: Tensor, measure: str) -> Tensor:
        """The weighted error, squared or absolute, as a number below 0: (groups, n)."""
        start = torch.add(minimum, scale, alpha=self.middle)
        torch.addcmul(start[:, None], self.quant, scale[:, None], out=self.product).sub_(self.x)
        if measure == "absolute":
            self.product.abs_()
        else:
            self.product.mul_(self.product)
        return self.product.mul_(self.weights).sum(1).neg_()

    def _sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted sums of the quants, of their squares, and of their products with x."""
        torch.mul(self.weights, self.quant, out=self.product)
        sum_l = self.product.sum(1)
        sum_l2 = torch.mul(self.product, self.quant, out=self.spare).sum(1)
        return sum_l, sum_l2, self.product.mul_(self.centred).sum(1)


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
    extreme.masked_fill_(zero, 1)
    weighted = weights * x
    quant, product = torch.empty_like(x), torch.empty_like(x)

    def rounded(inverse: Tensor) -> None:
        torch.mul(x, inverse[:, None], out=quant).round_().clamp_(-nmax, nmax - 1)

    def fitted() -> tuple[Tensor, Tensor]:
        sum_xl = torch.mul(weighted, quant, out=product).sum(1)
        sum_l2 = torch.mul(quant, quant, out=product).mul_(weights).sum(1)
        scale = sum_xl / sum_l2.clamp_(min=LEAST)
        return scale, sum_xl.mul_(scale)

    inverse = over(-nmax, extreme)
    rounded(inverse)
    scale, best = fitted()
    for levels in _levels(nmax, range(-9, 10), 0.1):
        trial = over(-levels, extreme)
        rounded(trial)
        this_scale, gain = fitted()
        better = is_above(gain, best)
        torch.maximum(gain, best, out=best)
        scale.lerp_(this_scale, better)
        if quants:
            inverse.lerp_(trial, better)
    scale.masked_fill_(zero, 0)
    if not quants:
        return Scaled(scale, None)
    rounded(inverse)
    return Scaled(scale, quant.add_(nmax).mul_((scale != 0)[:, None]))


def make_q3(x: Tensor, nmax: int) -> Tensor:
    """Scale of each group (groups, n), of either sign, by coordinate descent with weight x².

    `make_q3_quants`: five passes over the weights of a group, each moved to the best quant that
    the sums of the others leave it.

    Args:
        x: (groups, size, n) float32.
        nmax: quants are from -nmax to nmax - 1.
    """
    extreme = signed_extreme(x)
    extreme.masked_fill_(extreme.abs() < TINY, 1)
    weights = x * x
    weighted = weights * x
    quant = (x * over(-nmax, extreme)[:, None]).round_().clamp_(-nmax, nmax - 1)
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
    largest = x.amax(1)
    largest.masked_fill_(largest < TINY, 1)

    def error(inverse: Tensor) -> Tensor:
        quant = (x * inverse[:, None]).round_().clamp_(0, nmax)
        return (x - quant * inverse.reciprocal()[:, None]).square_().mul_(weights).sum(1)

    inverse = over(nmax, largest)
    least = error(inverse)
    for levels in _levels(nmax, range(-4, 5), 0.1):
        trial = over(levels, largest)
        found = error(trial)
        inverse = torch.where(found < least, trial, inverse)
        least = torch.minimum(least, found)
    quant = (x * inverse[:, None]).round_().clamp_(0, nmax)
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


def weights_of(groups: Tensor, importance: Tensor, factor: int) -> Tensor:
    """importance * sqrt(factor * mean square of the block + x²): (groups, size, n)."""
    square = groups.square()
    mean = square.mean((0, 1)).mul_(factor)
    return square.add_(mean).sqrt_().mul_(importance.view_as(groups))


def is_above(value: Tensor, other: Tensor | float) -> Tensor:
    """1 where value > other, else 0, as float32: for `lerp_`, several times as fast as `where`."""
    return torch.gt(value, other, out=torch.empty_like(value))


def over(number: Tensor | float, x: Tensor) -> Tensor:
    """`number / x` rounded once; torch takes the reciprocal first, and the last bit can decide."""
    return torch.div(torch.as_tensor(number, dtype=x.dtype), x)


def inverse_or_0(x: Tensor) -> Tensor:
    """1 / x, and 0 for 0."""
    return torch.where(x == 0, 0, x.reciprocal())


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
            new = (value * rest_l2).div_(rest_xl.clamp(min=LEAST)).round_().clamp_(*limits)
            allowed = is_above(torch.minimum(rest_xl, rest_l2), 0)
            changed = torch.ne(new, old, out=torch.empty_like(old))
            rest_xl.addcmul_(product, new)
            rest_l2.addcmul_(weight * new, new)
            better = is_above(rest_xl.square().mul_(sum_l2), sum_xl.square().mul_(rest_l2))
            better.mul_(allowed).mul_(changed)
            old.lerp_(new, better)
            sum_xl.lerp_(rest_xl, better)
            sum_l2.lerp_(rest_l2, better)
        if not quant.is_cuda and torch.equal(quant, before):
            break


def _levels(nmax: int, steps: range, distance: float, first: float = 0) -> tuple[Tensor, ...]:
    """`first + distance * i + nmax` for each step i but 0 of a range around it, in float32 as in C."""
    exact = torch.tensor(steps, dtype=torch.float32)
    if steps.start < 0:
        exact = exact[exact != 0]
    return (first + distance * exact + nmax).unbind()
