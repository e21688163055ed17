"""The training loop: packed rows of generated documents, Muon for matrices, AdamW for the rest, a schedule by tokens."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .chat import Segment
from .tokenizer import Tokenizer

Batch = tuple[Tensor, Tensor, Tensor]
Document = Callable[[random.Random, float], list[Segment]]  # randomness, progress of the training from 0 to 1


@dataclass
class Plan:
    tokens: float  # of all workers together
    rows: int = 8
    length: int = 512
    muon_rate: float = 0.006
    adam_rate: float = 0.003
    warmup: float = 0.03  # parts of the tokens: the rate rises in the first, and falls to zero in the last
    decay: float = 0.6
    progress: float | None = None  # what the documents are told; by default the part of the tokens that is done
    seed: int = 1
    compile: bool = False


def encode(tokenizer: Tokenizer, parts: list[Segment]) -> tuple[list[int], list[int]]:
    """Tokens, and for each the next token if the assistant says it, else -100."""
    tokens: list[int] = []
    spoken: list[bool] = []
    for text, own in parts:
        piece = tokenizer.encode(text)
        tokens += piece
        spoken += [own] * len(piece)
    targets = [token if own else -100 for token, own in zip(tokens[1:], spoken[1:])]
    return tokens[:-1], targets


def pack(
    tokenizer: Tokenizer, document: Callable[[random.Random], list[Segment]], rng: random.Random, rows: int, length: int
) -> Iterator[Batch]:
    """Rows filled with whole documents. Those that do not fit wait for a row with more room; some wait all the time."""
    waiting: deque[tuple[list[int], list[int]]] = deque()

    def fitting(room: int) -> tuple[list[int], list[int]] | None:
        for i, (ids, _) in enumerate(waiting):
            if len(ids) <= room:
                found = waiting[i]
                del waiting[i]
                return found
        while len(waiting) < 16:
            ids, wanted = encode(tokenizer, document(rng))
            if len(ids) <= room:
                return ids, wanted
            if len(ids) <= length:
                waiting.append((ids, wanted))
        return None

    while True:
        tokens = torch.full((rows, length), tokenizer.pad)
        targets = torch.full((rows, length), -100)
        starts = torch.zeros(rows, length, dtype=torch.bool)
        for row in range(rows):
            at = 0
            while found := fitting(length - at):
                ids, wanted = found
                tokens[row, at : at + len(ids)] = torch.tensor(ids)
                targets[row, at : at + len(ids)] = torch.tensor(wanted)
                starts[row, at] = True
                at += len(ids)
            if at < length:
                starts[row, at] = True
        yield tokens, targets, starts


def orthogonal(matrix: Tensor) -> Tensor:
    """Newton-Schulz iteration towards the nearest orthogonal matrix, batched over leading dims (Muon)."""
    x = matrix.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    x = x.transpose(-1, -2) if tall else x
    x = x / (x.float().norm(dim=(-2, -1), keepdim=True) + 1e-7).to(x.dtype)
    for _ in range(5):
        gram = x @ x.transpose(-1, -2)
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.transpose(-1, -2) if tall else x).float()


def share(parts: list[Tensor], mean: bool = False) -> list[Tensor]:
    """The sum (or mean) of each tensor over all workers."""
    if not dist.is_initialized():
        return parts
    flat = torch.cat([part.flatten() for part in parts])
    dist.all_reduce(flat)
    if mean:
        flat /= dist.get_world_size()
    return [piece.view_as(part) for piece, part in zip(flat.split([part.numel() for part in parts]), parts)]


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are orthogonalised, scaled to the size of an Adam update.

    Orthogonalising is the costly part, so workers share it: each updates its own matrices and all exchange the changes.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.02) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for group in self.param_groups:
            changes = []
            for i, p in enumerate(group["params"]):
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                if i % world == rank:
                    update = orthogonal(p.grad.lerp(buffer, group["momentum"]))
                    changes.append(update * (-group["lr"] * 0.2 * max(p.shape[-2:]) ** 0.5))
                else:
                    changes.append(torch.zeros_like(p))
            for p, change in zip(group["params"], share(changes)):
                p.mul_(1 - group["lr"] * group["decay"]).add_(change)


def optimizers(model: nn.Module, plan: Plan) -> list[torch.optim.Optimizer]:
    def is_matrix(name: str, p: nn.Parameter) -> bool:
        return (
            p.ndim >= 2
            and "token_embd" not in name
            and not name.startswith("output.")
            and "conv" not in name
            and "gate_inp" not in name
        )

    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if is_matrix(name, p)]
    others = [p for name, p in named if not is_matrix(name, p)]
    return [
        Muon(matrices, plan.muon_rate),
        torch.optim.AdamW(others, plan.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate(done: float, plan: Plan) -> float:
    """Warm up, hold, and decay linearly to zero."""
    return max(0.0, min(1.0, done / plan.warmup, (1.0 - done) / plan.decay if plan.decay else 1.0))


def run(
    model: nn.Module,
    tokenizer_path: Path,
    document: Document,
    plan: Plan,
    checkpoint: Path,
    log: Callable[[str], None] = print,
    on_save: Callable[[int], None] | None = None,
) -> None:
    """Trains until the planned tokens are used up, continuing from `checkpoint` when it exists."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    optims = optimizers(model, plan)
    step = tokens_seen = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optims, saved["optimizers"]):
            optimizer.load_state_dict(state)
        step, tokens_seen = saved["step"], saved["tokens"]
        log(f"resumed at step {step}, {tokens_seen / 1e6:.2f}M tokens")
    if plan.compile:
        for block in model.blocks():
            block.compile(dynamic=False)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    rng = random.Random(plan.seed * 1_000_003 + step * 64 + rank)

    def progress() -> float:
        return tokens_seen / plan.tokens if plan.progress is None else plan.progress

    batches = pack(Tokenizer.load(tokenizer_path), lambda rng: document(rng, progress()), rng, plan.rows, plan.length)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def save() -> None:
        if rank:
            return
        state = {
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optims],
            "step": step,
            "tokens": tokens_seen,
        }
        partial = checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(checkpoint)
        if on_save:
            on_save(tokens_seen)

    last_save = time.monotonic()
    averages: dict[str, float] = {}
    while tokens_seen < plan.tokens:
        began = time.monotonic()
        tokens, targets, starts = (part.to(device) for part in next(batches))
        scale = rate(tokens_seen / plan.tokens, plan)
        for optimizer, peak in zip(optims, (plan.muon_rate, plan.adam_rate)):
            for group in optimizer.param_groups:
                group["lr"] = peak * max(scale, 1e-3)
        with torch.autocast(device, torch.bfloat16):
            loss, numbers = model.loss(tokens, targets, starts)
        loss.backward()
        for p, grad in zip(parameters, share([p.grad for p in parameters], mean=True)):
            p.grad = grad
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optims:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        tokens_seen += tokens.numel() * world
        numbers["tok/s"] = tokens.numel() * world / (time.monotonic() - began)
        for key, value in numbers.items():
            averages[key] = value if step < 3 else averages.get(key, value) * 0.95 + value * 0.05
        if step % 10 == 0 and rank == 0:
            shown = " ".join(f"{key} {value:.4g}" for key, value in averages.items())
            log(f"step {step} tokens {tokens_seen / 1e6:.2f}M rate {scale:.2f} {shown}")
        if time.monotonic() - last_save > 150:
            save()
            last_save = time.monotonic()
    save()
