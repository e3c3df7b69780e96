# pyright: reportOperatorIssue=false
"""The Triton kernels of :mod:`keep.kernels.group_norm`.

Images are channels-last: ``hw`` rows of ``C`` channels. A program reads tiles of ``P`` rows and ``BC`` channels (a
power of two; the rest is masked). Large images are split into ``splits`` pieces of ``rows`` rows, one program each;
their partial results are combined by a second, small kernel. All arithmetic is in float32.
"""

import triton
import triton.language as tl


@triton.jit
def _normalised(v, mean, rstd):
    return (v - mean) * rstd


@triton.jit
def _slope(dy, xhat, weight, bias, SILU: tl.constexpr):
    """Gradient with respect to xhat · weight + bias; SiLU(z)' = s · (1 + z · (1 - s)), s = sigmoid(z)."""
    if SILU:
        z = xhat * weight + bias
        s = tl.sigmoid(z)
        dy = dy * s * (1 + z * (1 - s))
    return dy


@triton.jit
def _welford(x, rows, c, channels, C: tl.constexpr, P: tl.constexpr, B: tl.constexpr):
    """Moments of every ``P``-th of ``rows`` rows: count (P, 1), mean (P, B), sum of squared deviations (P, B).

    Welford, Technometrics 1962.
    """
    p = tl.arange(0, P)
    offsets = p[:, None] * C + c[None, :]
    count = tl.zeros([P, 1], tl.float32)
    mean = tl.zeros([P, B], tl.float32)
    square = tl.zeros([P, B], tl.float32)
    for row in range(0, rows, P):
        valid = (row + p < rows)[:, None]
        v = tl.load(x + offsets, mask=valid & channels[None, :], other=0).to(tl.float32)
        count += valid.to(tl.float32)
        delta = tl.where(valid, v - mean, 0)
        mean += delta * (1 / tl.maximum(count, 1))
        square += delta * (v - mean)
        x += P * C
    return count, mean, square


@triton.jit
def _mean_of_rows(count, mean):
    """Mean of all rows (B,) from the parts of :func:`_welford`; the second term corrects the rounding of the first."""
    total = tl.sum(tl.sum(count, 1), 0)
    first = tl.sum(count * mean, 0) / total
    return first + tl.sum(count * (mean - first[None, :]), 0) / total


@triton.jit
def moments(x, means, squares, hw, splits, rows, C: tl.constexpr, P: tl.constexpr, BC: tl.constexpr):
    """Mean and sum of squared deviations of each channel in each piece. Grid (N · splits, channel blocks).

    ``means``, ``squares``: (N, splits, C).
    """
    piece = tl.program_id(0)
    n, start = piece // splits, (piece % splits) * rows
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    channels = c < C
    at = (n.to(tl.int64) * hw + start) * C
    count, mean, square = _welford(x + at, min(rows, hw - start), c, channels, C, P, BC)
    average = _mean_of_rows(count, mean)
    deviation = mean - average[None, :]
    out = piece.to(tl.int64) * C + c
    tl.store(means + out, average, mask=channels)
    tl.store(squares + out, tl.sum(square + count * deviation * deviation, 0), mask=channels)


@triton.jit
def statistics(
    means, squares, mean, rstd, hw, splits, rows, eps,
    C: tl.constexpr, G: tl.constexpr, BS: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """Combine the pieces and channels of each group into mean and 1 / deviation, (N, G). Grid (N · G,)."""
    pid = tl.program_id(0)
    n, c = pid // G, tl.arange(0, BG)
    first = n.to(tl.int64) * splits * C + (pid % G) * (C // G)
    total = hw.to(tl.float32) * (C // G)
    shift = tl.load(means + first)
    acc = tl.zeros([BS, BG], tl.float32)
    for s in range(0, splits, BS):
        piece = s + tl.arange(0, BS)
        valid = (piece < splits)[:, None] & (c < C // G)[None, :]
        count = tl.minimum(rows, hw - piece * rows).to(tl.float32)[:, None]
        m = tl.load(means + first + piece[:, None] * C + c[None, :], mask=valid, other=0)
        acc += tl.where(valid, count * (m - shift), 0)
    average = shift + tl.sum(tl.sum(acc, 1), 0) / total
    acc = tl.zeros([BS, BG], tl.float32)
    for s in range(0, splits, BS):
        piece = s + tl.arange(0, BS)
        valid = (piece < splits)[:, None] & (c < C // G)[None, :]
        count = tl.minimum(rows, hw - piece * rows).to(tl.float32)[:, None]
        m = tl.load(means + first + piece[:, None] * C + c[None, :], mask=valid, other=0)
        square = tl.load(squares + first + piece[:, None] * C + c[None, :], mask=valid, other=0)
        acc += tl.where(valid, square + count * (m - average) * (m - average), 0)
    tl.store(mean + pid, average)
    tl.store(rstd + pid, tl.rsqrt(tl.sum(tl.sum(acc, 1), 0) / total + eps))


@triton.jit
def _normalise(
    x, y, rows, c, channels, m, r, w, b,
    C: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Write ``rows`` rows of y = xhat · weight + bias, through SiLU if asked."""
    p = tl.arange(0, P)
    offsets = p[:, None] * C + c[None, :]
    for row in range(0, rows, P):
        mask = (row + p < rows)[:, None] & channels[None, :]
        v = tl.load(x + offsets, mask=mask, other=0).to(tl.float32)
        v = _normalised(v, m, r) * w + b
        if SILU:
            v = v * tl.sigmoid(v)
        tl.store(y + offsets, v.to(y.dtype.element_ty), mask=mask)
        x += P * C
        y += P * C


@triton.jit
def _rows(mean, rstd, weight, bias, channels):
    """Mean, 1 / deviation, weight and bias of each channel, from their addresses: float32 (1, B) each."""
    m = tl.load(mean, mask=channels, other=0)[None, :]
    r = tl.load(rstd, mask=channels, other=0)[None, :]
    w = tl.load(weight, mask=channels, other=0).to(tl.float32)[None, :]
    b = tl.load(bias, mask=channels, other=0).to(tl.float32)[None, :]
    return m, r, w, b


@triton.jit
def apply(
    x, weight, bias, mean, rstd, y, hw, splits, rows,
    C: tl.constexpr, G: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """y from x and the statistics. Grid (N · splits, channel blocks)."""
    piece = tl.program_id(0)
    n, start = piece // splits, (piece % splits) * rows
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    channels = c < C
    group = n * G + c // (C // G)
    m, r, w, b = _rows(mean + group, rstd + group, weight + c, bias + c, channels)
    at = (n.to(tl.int64) * hw + start) * C
    _normalise(x + at, y + at, min(rows, hw - start), c, channels, m, r, w, b, C, SILU, P)


@triton.jit
def small(
    x, weight, bias, y, mean, rstd, hw, eps,
    C: tl.constexpr, G: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """All of the forward pass for small images: one program a group reads it twice. Grid (N · G,)."""
    pid = tl.program_id(0)
    n, k = pid // G, tl.arange(0, BG)
    channels = k < C // G
    c = (pid % G) * (C // G) + k
    at = n.to(tl.int64) * hw * C
    count, part, square = _welford(x + at, hw, c, channels, C, P, BG)
    each = _mean_of_rows(count, part)
    average = tl.sum(tl.where(channels, each, 0), 0) / (C // G)
    average += tl.sum(tl.where(channels, each - average, 0), 0) / (C // G)
    deviation = part - average
    total = tl.sum(tl.where(channels[None, :], square + count * deviation * deviation, 0), 0)
    r = tl.rsqrt(tl.sum(total, 0) / (hw.to(tl.float32) * (C // G)) + eps)
    tl.store(mean + pid, average)
    tl.store(rstd + pid, r)
    w = tl.load(weight + c, mask=channels, other=0).to(tl.float32)[None, :]
    b = tl.load(bias + c, mask=channels, other=0).to(tl.float32)[None, :]
    _normalise(x + at, y + at, hw, c, channels, average, r, w, b, C, SILU, P)


@triton.jit
def _gradient_sums(
    dy, x, rows, c, channels, m, r, w, b,
    C: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Sums over ``rows`` rows of dz and of dz · xhat, (B,) each; z = xhat · weight + bias."""
    p = tl.arange(0, P)
    offsets = p[:, None] * C + c[None, :]
    plain = tl.zeros([P, B], tl.float32)
    scaled = tl.zeros([P, B], tl.float32)
    for row in range(0, rows, P):
        mask = (row + p < rows)[:, None] & channels[None, :]
        xhat = _normalised(tl.load(x + offsets, mask=mask, other=0).to(tl.float32), m, r)
        dz = _slope(tl.load(dy + offsets, mask=mask, other=0).to(tl.float32), xhat, w, b, SILU)
        plain += dz
        scaled += dz * xhat
        dy += P * C
        x += P * C
    return tl.sum(plain, 0), tl.sum(scaled, 0)


@triton.jit
def _input_gradient(
    dy, x, dx, rows, c, channels, m, r, w, b, plain, scaled,
    C: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """Write dx = rstd · (dz · weight - plain - xhat · scaled); plain, scaled: the group's means of the two sums."""
    p = tl.arange(0, P)
    offsets = p[:, None] * C + c[None, :]
    for row in range(0, rows, P):
        mask = (row + p < rows)[:, None] & channels[None, :]
        xhat = _normalised(tl.load(x + offsets, mask=mask, other=0).to(tl.float32), m, r)
        dz = _slope(tl.load(dy + offsets, mask=mask, other=0).to(tl.float32), xhat, w, b, SILU)
        tl.store(dx + offsets, (r * (dz * w - plain - xhat * scaled)).to(dx.dtype.element_ty), mask=mask)
        dy += P * C
        x += P * C
        dx += P * C


@triton.jit
def gradient_sums(
    dy, x, weight, bias, mean, rstd, plain, scaled, hw, splits, rows,
    C: tl.constexpr, G: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Sums of dz and dz · xhat of each channel in each piece, (N, splits, C). Grid (N · splits, channel blocks)."""
    piece = tl.program_id(0)
    n, start = piece // splits, (piece % splits) * rows
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    channels = c < C
    group = n * G + c // (C // G)
    m, r, w, b = _rows(mean + group, rstd + group, weight + c, bias + c, channels)
    at = (n.to(tl.int64) * hw + start) * C
    a, s = _gradient_sums(dy + at, x + at, min(rows, hw - start), c, channels, m, r, w, b, C, SILU, P, BC)
    out = piece.to(tl.int64) * C + c
    tl.store(plain + out, a, mask=channels)
    tl.store(scaled + out, s, mask=channels)


@triton.jit
def group_sums(
    plain, scaled, weight, dbias, dweight, group_plain, group_scaled, hw, splits,
    C: tl.constexpr, G: tl.constexpr, BS: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """Combine the pieces: sums of each channel (N, C), and means over each group (N, G). Grid (N · G,)."""
    pid = tl.program_id(0)
    n, k = pid // G, tl.arange(0, BG)
    channels = k < C // G
    c = (pid % G) * (C // G) + k
    first = n.to(tl.int64) * splits * C
    a = tl.zeros([BS, BG], tl.float32)
    s = tl.zeros([BS, BG], tl.float32)
    for start in range(0, splits, BS):
        piece = start + tl.arange(0, BS)
        mask = (piece < splits)[:, None] & channels[None, :]
        at = first + piece[:, None] * C + c[None, :]
        a += tl.load(plain + at, mask=mask, other=0)
        s += tl.load(scaled + at, mask=mask, other=0)
    a, s = tl.sum(a, 0), tl.sum(s, 0)
    total = hw.to(tl.float32) * (C // G)
    w = tl.load(weight + c, mask=channels, other=0).to(tl.float32)
    tl.store(dbias + n * C + c, a, mask=channels)
    tl.store(dweight + n * C + c, s, mask=channels)
    tl.store(group_plain + pid, tl.sum(w * a, 0) / total)
    tl.store(group_scaled + pid, tl.sum(w * s, 0) / total)


@triton.jit
def input_gradient(
    dy, x, weight, bias, mean, rstd, group_plain, group_scaled, dx, hw, splits, rows,
    C: tl.constexpr, G: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dx. Grid (N · splits, channel blocks)."""
    piece = tl.program_id(0)
    n, start = piece // splits, (piece % splits) * rows
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    channels = c < C
    group = n * G + c // (C // G)
    m, r, w, b = _rows(mean + group, rstd + group, weight + c, bias + c, channels)
    a = tl.load(group_plain + group, mask=channels, other=0)[None, :]
    s = tl.load(group_scaled + group, mask=channels, other=0)[None, :]
    at = (n.to(tl.int64) * hw + start) * C
    _input_gradient(
        dy + at, x + at, dx + at, min(rows, hw - start), c, channels, m, r, w, b, a, s, C, SILU, P
    )  # fmt: skip


@triton.jit
def small_backward(
    dy, x, weight, bias, mean, rstd, dx, dbias, dweight, hw,
    C: tl.constexpr, G: tl.constexpr, SILU: tl.constexpr, P: tl.constexpr, BG: tl.constexpr,
):  # fmt: skip
    """All of the backward pass for small images: one program a group reads it twice. Grid (N · G,)."""
    pid = tl.program_id(0)
    n, k = pid // G, tl.arange(0, BG)
    channels = k < C // G
    c = (pid % G) * (C // G) + k
    at = n.to(tl.int64) * hw * C
    m, r = tl.load(mean + pid), tl.load(rstd + pid)
    w = tl.load(weight + c, mask=channels, other=0).to(tl.float32)
    b = tl.load(bias + c, mask=channels, other=0).to(tl.float32)
    a, s = _gradient_sums(
        dy + at, x + at, hw, c, channels, m, r, w[None, :], b[None, :], C, SILU, P, BG
    )  # fmt: skip
    tl.store(dbias + n * C + c, a, mask=channels)
    tl.store(dweight + n * C + c, s, mask=channels)
    total = hw.to(tl.float32) * (C // G)
    plain, scaled = tl.sum(w * a, 0) / total, tl.sum(w * s, 0) / total
    _input_gradient(dy + at, x + at, dx + at, hw, c, channels, m, r, w[None, :], b[None, :], plain, scaled, C, SILU, P)
