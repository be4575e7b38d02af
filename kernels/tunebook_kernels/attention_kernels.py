"""The programs of `attention`: a walk over tiles of scores that are made and forgotten.

One of the forward, and of dq, holds some queries of one head and walks over the keys that any of
them sees; one of dk and dv holds some keys and walks over the queries of all heads that share them.
Nothing is added by two programs, so that a result is the same each time. For the formulas see
`attention`; this module launches nothing.
"""

from __future__ import annotations

from functools import partial

from tunebook_kernels._launch import jit, tl

# Differ from batch to batch: a kernel compiled for one value of them would be compiled again.
VARY = ("length", "window", "documents", "halvings")


@jit
def document_of(starts_ptr, documents, halvings, at):  # type: ignore[no-untyped-def]
    """The last document that begins at or before each of `at`; `documents` itself after the end."""
    low = at * 0
    high = low + documents + 1
    for _ in range(halvings):
        middle = (low + high) // 2
        begun = tl.load(starts_ptr + middle, mask=middle <= documents, other=2147483647) <= at
        low = tl.where(begun, middle, low)
        high = tl.where(begun, high, middle)
    return low


@jit
def first_key(  # type: ignore[no-untyped-def]
    rows, starts_ptr, length, window, documents, halvings, PACKED: tl.constexpr
):
    """The first key that each query sees."""
    first = tl.maximum(rows - window + 1, 0)
    if PACKED:
        document = document_of(starts_ptr, documents, halvings, tl.minimum(rows, length - 1))
        first = tl.maximum(first, tl.load(starts_ptr + document))
    return first


@jit
def end_of_queries(  # type: ignore[no-untyped-def]
    cols, starts_ptr, length, window, documents, halvings, PACKED: tl.constexpr
):
    """The first query after each key that does not see it."""
    end = tl.minimum(cols + window, length)
    if PACKED:
        document = document_of(starts_ptr, documents, halvings, tl.minimum(cols, length - 1))
        after = tl.load(starts_ptr + document + 1, mask=document < documents, other=length)
        end = tl.minimum(end, after)
    return end


@jit
def capped(product, SCALE: tl.constexpr, SOFTCAP: tl.constexpr, EXACT: tl.constexpr):  # type: ignore[no-untyped-def]
    """The scores of a tile of products q·k, as powers of 2, and the derivative of the softcap."""
    # Not a return before the rest: triton 3.6 would compile the rest all the same.
    if SOFTCAP > 0.0:
        x = product * (SCALE / SOFTCAP)
        below_1 = 2.0 / (1.0 + tl.exp2(tl.abs(x) * 2.8853900817779268))  # 1 - |tanh|
        tanh = tl.where(x < 0, below_1 - 1.0, 1.0 - below_1)
        if EXACT:  # near zero the difference loses digits that float32 has (polynomial: Cephes)
            z = x * x
            p = -5.70498872745e-3 * z + 2.06390887954e-2
            p = (p * z - 5.37397155531e-2) * z + 1.33314422036e-1
            p = (p * z - 3.33332819422e-1) * z
            tanh = tl.where(z < 0.390625, x + x * p, tanh)
        return tanh * (SOFTCAP * 1.4426950408889634), below_1 * (2.0 - below_1)
    else:
        return product * (SCALE * 1.4426950408889634), 1.0


@jit
def load_tile(  # type: ignore[no-untyped-def]
    ptr, start, stride, length, COUNT: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_D: tl.constexpr
):
    """(COUNT, BLOCK_D) rows of a head from `start` on; zero beyond its length and width."""
    at = tl.arange(0, COUNT)[:, None]
    dims = tl.arange(0, BLOCK_D)[None, :]
    mask = at < length - start
    if HEAD_DIM < BLOCK_D:
        mask = mask & (dims < HEAD_DIM)
    return tl.load(
        ptr + tl.cast(start, tl.int64) * stride + at * stride + dims, mask=mask, other=0.0
    )


@jit
def store_tile(  # type: ignore[no-untyped-def]
    ptr,
    tile,
    start,
    stride,
    length,
    COUNT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The counterpart of `load_tile`."""
    at = tl.arange(0, COUNT)[:, None]
    dims = tl.arange(0, BLOCK_D)[None, :]
    mask = (at < length - start) & (dims < HEAD_DIM)
    out_at = ptr + tl.cast(start, tl.int64) * stride + at * stride + dims
    tl.store(out_at, tile.to(ptr.dtype.element_ty), mask=mask)


@partial(jit, do_not_specialize=VARY)
def attention_forward_kernel(  # type: ignore[no-untyped-def]
    q_ptr,  # (batch, HEADS, length, HEAD_DIM)
    k_ptr,  # (batch, HEADS / GROUP, length, HEAD_DIM)
    v_ptr,  # the same
    starts_ptr,  # (documents + 1,), int32, if PACKED
    out_ptr,  # (batch, HEADS, length, HEAD_DIM)
    lse_ptr,  # (batch, HEADS, length), float32
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    out_batch,
    out_head,
    out_row,
    length,
    window,
    documents,
    halvings,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PACKED: tl.constexpr,
    EXACT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS  # those with most keys first
    batch, head = (tl.program_id(1) // HEADS).to(tl.int64), (tl.program_id(1) % HEADS).to(tl.int64)
    k_ptr += batch * k_batch + head // GROUP * k_head
    v_ptr += batch * v_batch + head // GROUP * v_head
    rows = start + tl.arange(0, ROWS)
    first = first_key(rows, starts_ptr, length, window, documents, halvings, PACKED)
    q = load_tile(
        q_ptr + batch * q_batch + head * q_head, start, q_row, length, ROWS, HEAD_DIM, BLOCK_D
    )
    out = tl.zeros((ROWS, BLOCK_D), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    largest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    # As a number, not as the least of `first`: triton 3.9 would not prefetch in such a loop.
    low = first_key(start, starts_ptr, length, window, documents, halvings, PACKED)
    for key in range(low // COLS * COLS, tl.minimum(start + ROWS, length), COLS):
        k = load_tile(k_ptr, key, k_row, length, COLS, HEAD_DIM, BLOCK_D)
        product = tl.dot(q, tl.trans(k), input_precision="ieee")
        score, _ = capped(product, SCALE, SOFTCAP, EXACT)
        cols = (key + tl.arange(0, COLS))[None, :]
        seen = (cols <= rows[:, None]) & (cols >= first[:, None])
        score = tl.where(seen, score, float("-inf"))
        before, largest = largest, tl.maximum(largest, tl.max(score, 1))
        shift = tl.where(largest == float("-inf"), 0.0, largest)  # nothing seen so far
        p = tl.exp2(score - shift[:, None])
        keep = tl.exp2(before - shift)
        total = total * keep + tl.sum(p, 1)
        v = load_tile(v_ptr, key, v_row, length, COLS, HEAD_DIM, BLOCK_D)
        out = tl.dot(p.to(v.dtype), v, out * keep[:, None], input_precision="ieee")
    total = tl.where(total == 0.0, 1.0, total)  # of rows beyond the last
    out = out / total[:, None]
    store_tile(
        out_ptr + batch * out_batch + head * out_head,
        out,
        start,
        out_row,
        length,
        ROWS,
        HEAD_DIM,
        BLOCK_D,
    )
    lse_at = lse_ptr + (batch * HEADS + head) * length + rows
    tl.store(lse_at, largest + tl.log2(total), mask=rows < length)


@partial(jit, do_not_specialize=VARY)
def attention_dq_kernel(  # type: ignore[no-untyped-def]
    q_ptr,  # as of the forward
    k_ptr,
    v_ptr,
    starts_ptr,
    out_ptr,  # (batch, HEADS, length, HEAD_DIM)
    dout_ptr,  # the same
    lse_ptr,  # (batch, HEADS, length), float32
    delta_ptr,  # the same, is written
    dq_ptr,  # (batch, HEADS, length, HEAD_DIM), is written
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    out_batch,
    out_head,
    out_row,
    dout_batch,
    dout_head,
    dout_row,
    dq_batch,
    dq_head,
    dq_row,
    length,
    window,
    documents,
    halvings,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PACKED: tl.constexpr,
    EXACT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    start = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS
    batch, head = (tl.program_id(1) // HEADS).to(tl.int64), (tl.program_id(1) % HEADS).to(tl.int64)
    q_ptr += batch * q_batch + head * q_head
    k_ptr += batch * k_batch + head // GROUP * k_head
    v_ptr += batch * v_batch + head // GROUP * v_head
    out_ptr += batch * out_batch + head * out_head
    dout_ptr += batch * dout_batch + head * dout_head
    dq_ptr += batch * dq_batch + head * dq_head
    rows = start + tl.arange(0, ROWS)
    first = first_key(rows, starts_ptr, length, window, documents, halvings, PACKED)
    dout = load_tile(dout_ptr, start, dout_row, length, ROWS, HEAD_DIM, BLOCK_D)
    out = load_tile(out_ptr, start, out_row, length, ROWS, HEAD_DIM, BLOCK_D)
    delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
    of_row = (batch * HEADS + head) * length + rows
    tl.store(delta_ptr + of_row, delta, mask=rows < length)
    lse = tl.load(lse_ptr + of_row, mask=rows < length, other=0.0)
    q = load_tile(q_ptr, start, q_row, length, ROWS, HEAD_DIM, BLOCK_D)
    dq = tl.zeros((ROWS, BLOCK_D), dtype=tl.float32)
    # As a number, not as the least of `first`: triton 3.9 would not prefetch in such a loop.
    low = first_key(start, starts_ptr, length, window, documents, halvings, PACKED)
    for key in range(low // COLS * COLS, tl.minimum(start + ROWS, length), COLS):
        k = load_tile(k_ptr, key, k_row, length, COLS, HEAD_DIM, BLOCK_D)
        v = load_tile(v_ptr, key, v_row, length, COLS, HEAD_DIM, BLOCK_D)
        product = tl.dot(q, tl.trans(k), input_precision="ieee")
        score, slope = capped(product, SCALE, SOFTCAP, EXACT)
        cols = (key + tl.arange(0, COLS))[None, :]
        seen = (cols <= rows[:, None]) & (cols >= first[:, None])
        p = tl.where(seen, tl.exp2(score - lse[:, None]), 0.0)
        dp = tl.dot(dout, tl.trans(v), input_precision="ieee")
        dproduct = p * (dp - delta[:, None]) * slope
        dq = tl.dot(dproduct.to(k.dtype), k, dq, input_precision="ieee")
    store_tile(dq_ptr, dq * SCALE, start, dq_row, length, ROWS, HEAD_DIM, BLOCK_D)


@partial(jit, do_not_specialize=VARY)
def attention_dk_dv_kernel(  # type: ignore[no-untyped-def]
    q_ptr,  # as of the forward
    k_ptr,
    v_ptr,
    starts_ptr,
    dout_ptr,  # (batch, HEADS, length, HEAD_DIM)
    lse_ptr,  # (batch, HEADS, length), float32
    delta_ptr,  # the same, as the program of dq wrote it
    dk_ptr,  # (batch, HEADS / GROUP, length, HEAD_DIM), is written
    dv_ptr,  # the same
    q_batch,
    q_head,
    q_row,
    k_batch,
    k_head,
    k_row,
    v_batch,
    v_head,
    v_row,
    dout_batch,
    dout_head,
    dout_row,
    dk_batch,
    dk_head,
    dk_row,
    dv_batch,
    dv_head,
    dv_row,
    length,
    window,
    documents,
    halvings,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    SCALE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    PACKED: tl.constexpr,
    EXACT: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    start = tl.program_id(0) * COLS  # those with most queries first
    kv_heads: tl.constexpr = HEADS // GROUP
    batch = (tl.program_id(1) // kv_heads).to(tl.int64)
    kv_head = (tl.program_id(1) % kv_heads).to(tl.int64)
    q_ptr += batch * q_batch
    dout_ptr += batch * dout_batch
    cols = start + tl.arange(0, COLS)
    end = end_of_queries(cols, starts_ptr, length, window, documents, halvings, PACKED)
    k_ptr += batch * k_batch + kv_head * k_head
    v_ptr += batch * v_batch + kv_head * v_head
    k = load_tile(k_ptr, start, k_row, length, COLS, HEAD_DIM, BLOCK_D)
    v = load_tile(v_ptr, start, v_row, length, COLS, HEAD_DIM, BLOCK_D)
    dk = tl.zeros((COLS, BLOCK_D), dtype=tl.float32)
    dv = tl.zeros((COLS, BLOCK_D), dtype=tl.float32)
    last = end_of_queries(start + COLS - 1, starts_ptr, length, window, documents, halvings, PACKED)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        of_head = (batch * HEADS + head) * length
        for query in range(start // ROWS * ROWS, last, ROWS):
            rows = query + tl.arange(0, ROWS)
            q = load_tile(q_ptr + head * q_head, query, q_row, length, ROWS, HEAD_DIM, BLOCK_D)
            product = tl.dot(k, tl.trans(q), input_precision="ieee")
            score, slope = capped(product, SCALE, SOFTCAP, EXACT)
            lse = tl.load(lse_ptr + of_head + rows, mask=rows < length, other=0.0)
            seen = (rows[None, :] >= cols[:, None]) & (rows[None, :] < end[:, None])
            p = tl.exp2(score - lse[None, :])
            p = tl.where(seen, p, 0.0)
            dout = load_tile(
                dout_ptr + head * dout_head, query, dout_row, length, ROWS, HEAD_DIM, BLOCK_D
            )
            dv = tl.dot(p.to(dout.dtype), dout, dv, input_precision="ieee")
            delta = tl.load(delta_ptr + of_head + rows, mask=rows < length, other=0.0)
            dp = tl.dot(v, tl.trans(dout), input_precision="ieee")
            dproduct = p * (dp - delta[None, :]) * slope
            dk = tl.dot(dproduct.to(q.dtype), q, dk, input_precision="ieee")
    dk_ptr += batch * dk_batch + kv_head * dk_head
    dv_ptr += batch * dv_batch + kv_head * dv_head
    store_tile(dk_ptr, dk * SCALE, start, dk_row, length, COLS, HEAD_DIM, BLOCK_D)
    store_tile(dv_ptr, dv, start, dv_row, length, COLS, HEAD_DIM, BLOCK_D)
