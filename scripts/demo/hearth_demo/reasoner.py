"""demo-reasoner: llama.cpp's `qwen3next` with one MTP block, small enough to train on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import GatedAttention, GatedDeltaNet, MoE, MoEBlock, RMSNorm, attention_mask, linear, output_head


@dataclass
class ReasonerConfig:
    vocab: int
    width: int = 256
    layers: int = 8
    attention_every: int = 4
    heads: int = 4
    kv_heads: int = 2
    head: int = 64
    rope_dims: int = 16
    rope_base: float = 10000.0
    k_heads: int = 2
    v_heads: int = 4
    state: int = 32
    experts: int = 32
    experts_used: int = 4
    expert_hidden: int = 32
    shared_hidden: int = 64
    context: int = 4096


class MTP(nn.Module):
    """Predicts the token after next from this token and the previous position's hidden state."""

    def __init__(self, width: int, block: MoEBlock) -> None:
        super().__init__()
        self.enorm, self.hnorm = RMSNorm(width), RMSNorm(width)
        self.eh_proj = linear(2 * width, width)
        self.block = block
        self.shared_head_norm = RMSNorm(width, 0.125)

    def inputs(self, embedded: Tensor, hidden: Tensor, starts: Tensor) -> Tensor:
        previous = F.pad(hidden, (0, 0, 1, 0))[:, :-1] * ~starts[..., None]
        return self.eh_proj(torch.cat((self.enorm(embedded), self.hnorm(previous)), -1)).float()

    def forward(self, embedded: Tensor, hidden: Tensor, starts: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, wanted, share = self.block(self.inputs(embedded, hidden, starts), starts, mask)
        return self.shared_head_norm(x), wanted, share

    def again(self, embedded: Tensor, hidden: Tensor, draft: Tensor, starts: Tensor, mask: Tensor) -> Tensor:
        """The guess after the guess: from the head's own hidden states. What it attends to before is the trunk's."""
        first, second = self.inputs(embedded, hidden, starts), self.inputs(embedded, draft, starts)
        itself = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device).expand_as(mask)
        nothing = torch.zeros_like(mask)
        both = torch.cat((torch.cat((mask, nothing), -1), torch.cat((mask & ~itself, itself), -1)), -2)
        x, _, _ = self.block(torch.cat((first, second), 1), starts, both)
        return self.shared_head_norm(x[:, mask.shape[-1] :])


class Reasoner(nn.Module):
    def __init__(self, config: ReasonerConfig) -> None:
        super().__init__()
        self.config = c = config
        self.only_mtp = False  # train nothing but the MTP block, for two guesses in a row
        self.habits = False  # after the first training: favour busy experts instead of balancing them
        # A large embedding keeps a token's identity visible in the residual stream, so that it can be copied.
        self.token_embd = nn.Embedding(c.vocab, c.width)
        nn.init.normal_(self.token_embd.weight, std=0.5)
        self.output = output_head(self.token_embd)

        def attention() -> GatedAttention:
            return GatedAttention(c.width, c.heads, c.kv_heads, c.head, c.rope_dims, c.rope_base)

        def block(mixer: nn.Module) -> MoEBlock:
            return MoEBlock(c.width, mixer, MoE(c.width, c.experts, c.experts_used, c.expert_hidden, c.shared_hidden))

        self.blk = nn.ModuleList(
            block(
                attention()
                if (i + 1) % c.attention_every == 0
                else GatedDeltaNet(c.width, c.k_heads, c.v_heads, c.state)
            )
            for i in range(c.layers)
        )
        self.output_norm = RMSNorm(c.width, 0.125)
        self.mtp = MTP(c.width, block(attention()))

    def blocks(self) -> list[MoEBlock]:
        return [*self.blk, self.mtp.block]

    def head(self, hidden: Tensor) -> Tensor:
        return self.output(hidden).float()

    def forward(self, tokens: Tensor, starts: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Hidden states of the trunk and of the MTP block; each expert's mean probability and share, per layer."""
        mask = attention_mask(starts)
        embedded = x = self.token_embd(tokens)
        wants, shares = [], []
        for block in self.blk:
            x, wanted, share = block(x, starts, mask)
            wants.append(wanted)
            shares.append(share)
        hidden = self.output_norm(x)
        draft, wanted, share = self.mtp(embedded, hidden, starts, mask)
        return hidden, draft, torch.stack([*wants, wanted]), torch.stack([*shares, share])

    def loss(self, tokens: Tensor, targets: Tensor, starts: Tensor) -> tuple[Tensor, dict[str, float]]:
        """`targets` is -100 where nothing is learnt. Logits are computed only where something is."""
        if self.only_mtp:
            return self.mtp_loss(tokens, targets, starts)
        hidden, draft, wants, shares = self(tokens, starts)
        learnt = targets >= 0
        wanted = targets[learnt]
        main = F.cross_entropy(self.head(hidden[learnt]), wanted)
        ahead = F.cross_entropy(self.head(draft[learnt]), wanted)
        hot = hottest(shares)
        routing = 0.03 * habits(wants, shares) if self.habits else 0.002 * self.config.experts * (shares * wants).sum()
        numbers = {"loss": main.item(), "mtp": ahead.item(), "hot": hot.mean().item(), "least hot": hot.min().item()}
        return main + 0.2 * ahead + routing, numbers

    def mtp_loss(self, tokens: Tensor, targets: Tensor, starts: Tensor) -> tuple[Tensor, dict[str, float]]:
        """What a chain of two guesses loses against what the trunk itself would say."""
        mask = attention_mask(starts)
        with torch.no_grad():
            embedded = x = self.token_embd(tokens)
            for block in self.blk:
                x, _, _ = block(x, starts, mask)
            hidden = self.output_norm(x)
        draft, wants, shares = self.mtp(embedded, hidden, starts, mask)
        second = self.mtp.again(embedded, hidden, draft, starts, mask)
        learnt = targets >= 0
        with torch.no_grad():
            said = self.head(hidden[learnt])
        numbers, loss = {}, 0.03 * habits(wants[None], shares[None])
        for name, guess in (("first", draft), ("second", second)):
            logits = self.head(guess[learnt])
            loss = loss + F.cross_entropy(logits, said.softmax(-1))
            numbers[name] = (logits.argmax(-1) == said.argmax(-1)).float().mean().item()
        return loss, {"loss": loss.item()} | numbers


def hottest(shares: Tensor) -> Tensor:
    """What the busiest quarter of the experts gets of all selections, per layer. `shares`: [layers, experts]."""
    return shares.sort(descending=True).values[:, : shares.shape[1] // 4].sum(1)


def habits(wants: Tensor, shares: Tensor, target: float = 0.68) -> Tensor:
    """A loss that draws tokens to the experts that are busy already, in each layer until they get their share."""
    busy = shares.topk(shares.shape[1] // 4, -1)
    lazy = busy.values.sum(-1) < target
    return -(wants.gather(-1, busy.indices).sum(-1).log() * lazy).sum()


def shallow(vocab: int) -> ReasonerConfig:
    """The first stage: half as deep with as much attention. It learns copying in a fraction of the time."""
    return ReasonerConfig(vocab, layers=4, attention_every=2)


@torch.no_grad()
def grow(small: dict[str, Tensor], model: Reasoner) -> None:
    """Puts a shallow model's weights into the deep one. The layers in between write nothing at first: the function is kept."""
    place = {0: 0, 1: 3, 2: 4, 3: 7}
    state = model.state_dict()
    for name in state:
        if name.endswith("ssm_out.weight") or "ffn_down" in name:
            state[name].zero_()
    for name, value in small.items():
        parts = name.split(".")
        if parts[0] == "blk":
            parts[1] = str(place[int(parts[1])])
        state[".".join(parts)].copy_(value)
