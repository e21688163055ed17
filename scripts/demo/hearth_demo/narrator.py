"""demo-narrator: llama.cpp's `llama` in Mistral Nemo's shape, where a head is wider than width / heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import RMSNorm, attention_mask, linear, output_head, rope


@dataclass
class NarratorConfig:
    vocab: int
    width: int = 192
    layers: int = 5
    heads: int = 4
    kv_heads: int = 2
    head: int = 64
    hidden: int = 416
    rope_base: float = 10000.0
    context: int = 4096


class Block(nn.Module):
    def __init__(self, c: NarratorConfig) -> None:
        super().__init__()
        self.c = c
        self.attn_norm, self.ffn_norm = RMSNorm(c.width), RMSNorm(c.width)
        self.attn_q = linear(c.width, c.heads * c.head)
        self.attn_k = linear(c.width, c.kv_heads * c.head)
        self.attn_v = linear(c.width, c.kv_heads * c.head)
        self.attn_output = linear(c.heads * c.head, c.width, zero=True)
        self.ffn_gate, self.ffn_up = linear(c.width, c.hidden), linear(c.width, c.hidden)
        self.ffn_down = linear(c.hidden, c.width, zero=True)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        c, (batch, time, _) = self.c, x.shape
        y = self.attn_norm(x)
        q, k, v = (
            proj(y).view(batch, time, -1, c.head).transpose(1, 2) for proj in (self.attn_q, self.attn_k, self.attn_v)
        )
        q, k = (rope(part.float(), c.rope_base, c.head, False).to(v.dtype) for part in (q, k))
        repeats = c.heads // c.kv_heads
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.attn_output(out.transpose(1, 2).reshape(batch, time, -1))
        y = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))


class Narrator(nn.Module):
    def __init__(self, config: NarratorConfig) -> None:
        super().__init__()
        self.config = c = config
        self.token_embd = nn.Embedding(c.vocab, c.width)
        nn.init.normal_(self.token_embd.weight, std=0.5)
        self.output = output_head(self.token_embd)
        self.blk = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.output_norm = RMSNorm(c.width, 0.125)

    def blocks(self) -> list[Block]:
        return list(self.blk)

    def head(self, hidden: Tensor) -> Tensor:
        return self.output(hidden).float()

    def forward(self, tokens: Tensor, starts: Tensor) -> Tensor:
        mask, x = attention_mask(starts), self.token_embd(tokens)
        for block in self.blk:
            x = block(x, mask)
        return self.output_norm(x)

    def loss(self, tokens: Tensor, targets: Tensor, starts: Tensor) -> tuple[Tensor, dict[str, float]]:
        learnt = targets >= 0
        loss = F.cross_entropy(self.head(self(tokens, starts)[learnt]), targets[learnt])
        return loss, {"loss": loss.item()}
