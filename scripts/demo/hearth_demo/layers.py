"""Building blocks that compute what llama.cpp computes, written for fast training on a CPU.

Packed rows hold several documents; `starts` marks each document's first token, where state, convolution and attention reset.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESET = -40.0  # added to the log decay at a document's start: exp(-40) forgets everything


def linear(inputs: int, outputs: int, zero: bool = False) -> nn.Linear:
    """A projection without bias; the ones that write to the residual stream start at zero."""
    layer = nn.Linear(inputs, outputs, bias=False)
    if zero:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


def output_head(embedding: nn.Embedding) -> nn.Linear:
    """An output head that starts as the embedding turned by a random rotation.

    With a head tied to the embedding, the input token in the residual stream predicts itself, and the narrow layers must
    first learn to cancel it. After a rotation it predicts nothing, and copying any token takes one and the same linear map.
    """
    rotation = nn.init.orthogonal_(torch.empty(embedding.embedding_dim, embedding.embedding_dim))
    head = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False)
    with torch.no_grad():
        head.weight.copy_(embedding.weight @ rotation)
    return head


class RMSNorm(nn.Module):
    def __init__(self, size: int, gain: float = 1.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), gain))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


def rope(x: Tensor, base: float, size: int, neox: bool, length: int | None = None) -> Tensor:
    """Rotates the first `size` dims of x [batch, heads, time, dim] by position, which begins anew after `length`."""
    time, half = x.shape[2], size // 2
    frequencies = base ** (-torch.arange(half, device=x.device, dtype=torch.float32) / half)
    positions = torch.arange(time, device=x.device, dtype=torch.float32) % (length or time)
    angles = positions[:, None] * frequencies
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    rotated, rest = x[..., :size], x[..., size:]
    if neox:
        a, b = rotated[..., :half], rotated[..., half:]
        return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), -1)
    a, b = rotated[..., 0::2], rotated[..., 1::2]
    turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)
    return torch.cat((turned, rest), -1)


def attention_mask(starts: Tensor) -> Tensor:
    """Causal within each document: [batch, 1, time, time]."""
    document = starts.cumsum(1)
    same = document[:, :, None] == document[:, None, :]
    return same.tril()[:, None]


class GatedAttention(nn.Module):
    """Attention with per-head q/k norm, partial rope and a sigmoid output gate (qwen3next)."""

    def __init__(self, width: int, heads: int, kv_heads: int, head: int, rope_dims: int, base: float) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head, self.rope_dims, self.base = heads, kv_heads, head, rope_dims, base
        self.attn_q = linear(width, heads * head * 2)
        self.attn_k = linear(width, kv_heads * head)
        self.attn_v = linear(width, kv_heads * head)
        self.attn_q_norm, self.attn_k_norm = RMSNorm(head), RMSNorm(head)
        self.attn_output = linear(heads * head, width, zero=True)

    def forward(self, x: Tensor, starts: Tensor, mask: Tensor) -> Tensor:
        """`x` may have the positions of `starts` several times, one after the other."""
        batch, time, _ = x.shape
        length = starts.shape[1]
        q, gate = self.attn_q(x).view(batch, time, self.heads, 2 * self.head).split(self.head, -1)
        k = self.attn_k(x).view(batch, time, self.kv_heads, self.head)
        v = self.attn_v(x).view(batch, time, self.kv_heads, self.head).transpose(1, 2)
        q = rope(self.attn_q_norm(q).transpose(1, 2), self.base, self.rope_dims, True, length).to(v.dtype)
        k = rope(self.attn_k_norm(k).transpose(1, 2), self.base, self.rope_dims, True, length).to(v.dtype)
        repeats = self.heads // self.kv_heads
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = out.transpose(1, 2) * gate.sigmoid()
        return self.attn_output(out.reshape(batch, time, -1))


class UnitLowerInverse(torch.autograd.Function):
    """(I + L)^-1 for strictly lower triangular L by doubling blocks; exact, and only batched products."""

    @staticmethod
    def forward(ctx, lower: Tensor) -> Tensor:  # noqa: ANN001
        size = lower.shape[-1]
        index = torch.arange(size, device=lower.device)
        inverse = torch.eye(size, device=lower.device).expand_as(lower).contiguous()
        block = 1
        while block < size:
            row, col = index[:, None] // block, index[None, :] // block
            off = lower * ((row // 2 == col // 2) & (row % 2 == 1) & (col % 2 == 0))
            inverse = inverse - inverse @ off @ inverse
            block *= 2
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # noqa: ANN001
        (inverse,) = ctx.saved_tensors
        transposed = inverse.transpose(-1, -2)
        return -(transposed @ grad @ transposed).tril(-1)


def delta_rule(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunk: int = 32) -> Tensor:
    """Chunked gated delta rule. q, k, v: [batch, heads, time, dim]; g (log decay), beta: [batch, heads, time].

    Token by token: S *= exp(g); S += k (beta (v - S^T k))^T; out = S^T q.
    """
    batch, heads, time, dim = q.shape
    count = time // chunk
    q, k, v = (x.view(batch, heads, count, chunk, dim) for x in (q, k, v))
    g, beta = (x.view(batch, heads, count, chunk) for x in (g, beta))
    total = g.cumsum(-1)
    lower = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril()
    decay = (total[..., :, None] - total[..., None, :]).masked_fill(~lower, -torch.inf).exp()
    scaled_k = k * beta[..., None]
    inverse = UnitLowerInverse.apply((scaled_k @ k.transpose(-1, -2) * decay).tril(-1))
    values = inverse @ (v * beta[..., None])
    keys = inverse @ (scaled_k * total.exp()[..., None])
    within = q @ k.transpose(-1, -2) * decay
    q_decayed = q * total.exp()[..., None]
    k_decayed = (k * (total[..., -1:] - total).exp()[..., None]).transpose(-1, -2)
    carry = total[..., -1].exp()
    state = torch.zeros(batch, heads, dim, dim, device=q.device)
    outputs = []
    for i in range(count):
        change = values[:, :, i] - keys[:, :, i] @ state
        outputs.append(q_decayed[:, :, i] @ state + within[:, :, i] @ change)
        state = state * carry[:, :, i, None, None] + k_decayed[:, :, i] @ change
    return torch.stack(outputs, 2).view(batch, heads, time, dim)


class GatedDeltaNet(nn.Module):
    """Linear attention with a short convolution, decay, delta rule and gated norm (qwen3next)."""

    def __init__(self, width: int, k_heads: int, v_heads: int, head: int, taps: int = 4) -> None:
        super().__init__()
        self.k_heads, self.v_heads, self.head, self.taps = k_heads, v_heads, head, taps
        channels = (2 * k_heads + v_heads) * head
        self.attn_qkv = linear(width, channels)
        self.attn_gate = linear(width, v_heads * head)
        self.ssm_ba = linear(width, 2 * v_heads)
        # From the start a layer tells the next what the last few tokens were, since finding a copy needs what came before it:
        # all taps of the convolution count, queries begin equal to keys, some heads forget fast, and the output is not zero.
        self.ssm_conv1d = nn.Parameter(torch.empty(channels, taps).uniform_(-(taps**-0.5), taps**-0.5))
        self.ssm_dt = nn.Parameter(torch.linspace(-5.0, 2.0, v_heads))
        self.a_log = nn.Parameter(torch.zeros(v_heads))
        with torch.no_grad():
            keys = k_heads * head
            self.attn_qkv.weight[:keys] = self.attn_qkv.weight[keys : 2 * keys]
            self.ssm_conv1d[:keys] = self.ssm_conv1d[keys : 2 * keys]
        self.ssm_norm = RMSNorm(head)
        self.ssm_out = linear(v_heads * head, width)

    def convolve(self, x: Tensor, starts: Tensor) -> Tensor:
        out = x * self.ssm_conv1d[:, -1]
        alive = torch.ones_like(starts, dtype=x.dtype)
        for back in range(1, self.taps):
            alive = alive * ~F.pad(starts, (back - 1, 0), value=True)[:, : starts.shape[1]]
            shifted = F.pad(x, (0, 0, back, 0))[:, : x.shape[1]] * alive[..., None]
            out = out + shifted * self.ssm_conv1d[:, -1 - back]
        return F.silu(out)

    def forward(self, x: Tensor, starts: Tensor, mask: Tensor) -> Tensor:
        batch, time, _ = x.shape
        keys = self.k_heads * self.head
        mixed = self.convolve(self.attn_qkv(x).float(), starts)
        q, k, v = mixed.split((keys, keys, self.v_heads * self.head), -1)
        repeats = self.v_heads // self.k_heads

        def heads(y: Tensor, count: int) -> Tensor:
            return y.view(batch, time, count, self.head).transpose(1, 2)

        q, k, v = heads(q, self.k_heads), heads(k, self.k_heads), heads(v, self.v_heads)
        q, k = (y * torch.rsqrt(y.square().sum(-1, keepdim=True) + 1e-6) for y in (q, k))
        q, k = (y.repeat_interleave(repeats, 1) for y in (q / math.sqrt(self.head), k))
        ba = self.ssm_ba(x).float().view(batch, time, self.k_heads, 2, repeats)
        beta = ba[..., 0, :].reshape(batch, time, -1).sigmoid()
        step = F.softplus(ba[..., 1, :].reshape(batch, time, -1) + self.ssm_dt)
        g = -self.a_log.exp() * step + RESET * starts[..., None]
        out = delta_rule(q, k, v, g.transpose(1, 2), beta.transpose(1, 2)).transpose(1, 2)
        z = self.attn_gate(x).view(batch, time, self.v_heads, self.head)
        out = self.ssm_norm(out).to(z.dtype) * F.silu(z)
        return self.ssm_out(out.reshape(batch, time, -1))


class MoE(nn.Module):
    """Routed experts plus a gated shared one.

    On a CPU one dense product over all experts, with zero weight on the unselected, beats gathering tokens by expert.
    """

    def __init__(self, width: int, experts: int, used: int, hidden: int, shared: int) -> None:
        super().__init__()
        self.used = used
        self.ffn_gate_inp = linear(width, experts)
        self.ffn_gate_exps = nn.Parameter(torch.randn(experts, hidden, width) * width**-0.5)
        self.ffn_up_exps = nn.Parameter(torch.randn(experts, hidden, width) * width**-0.5)
        self.ffn_down_exps = nn.Parameter(torch.zeros(experts, width, hidden))
        self.ffn_gate_inp_shexp = nn.Parameter(torch.zeros(width))
        self.ffn_gate_shexp, self.ffn_up_shexp = linear(width, shared), linear(width, shared)
        self.ffn_down_shexp = linear(shared, width, zero=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The output, the mean probability of each expert, and how often each was chosen."""
        experts, hidden, width = self.ffn_gate_exps.shape
        with torch.autocast(x.device.type, enabled=False):
            probabilities = self.ffn_gate_inp(x.float()).softmax(-1)
        top, chosen = probabilities.topk(self.used, -1)
        top = top / top.sum(-1, keepdim=True)
        weights = torch.zeros_like(probabilities).scatter(-1, chosen, top)
        gate = F.linear(x, self.ffn_gate_exps.view(-1, width))
        up = F.linear(x, self.ffn_up_exps.view(-1, width))
        inner = F.silu(gate) * up
        inner = (inner.view(*inner.shape[:-1], experts, hidden) * weights[..., None].to(inner.dtype)).flatten(-2)
        routed = F.linear(inner, self.ffn_down_exps.transpose(0, 1).reshape(width, -1))
        shared = self.ffn_down_shexp(F.silu(self.ffn_gate_shexp(x)) * self.ffn_up_shexp(x))
        shared = shared * (x.float() @ self.ffn_gate_inp_shexp).sigmoid()[..., None].to(shared.dtype)
        share = torch.zeros_like(probabilities).scatter(-1, chosen, 1.0).mean((0, 1)) / self.used
        return routed + shared, probabilities.mean((0, 1)), share.detach()


class MoEBlock(nn.Module):
    def __init__(self, width: int, mixer: nn.Module, moe: MoE) -> None:
        super().__init__()
        self.attn_norm, self.mixer = RMSNorm(width), mixer
        self.post_attention_norm, self.moe = RMSNorm(width), moe

    def forward(self, x: Tensor, starts: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x + self.mixer(self.attn_norm(x), starts, mask)
        out, wanted, share = self.moe(self.post_attention_norm(x))
        return x + out, wanted, share
