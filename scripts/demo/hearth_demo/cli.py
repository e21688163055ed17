"""Trains a demo model, exporting it after every checkpoint, or exports the last checkpoint."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from . import export, scenes, skills, tokenizer, training, words
from .narrator import Narrator, NarratorConfig
from .reasoner import Reasoner, ReasonerConfig, grow, shallow

MODELS = {
    "reasoner": (Reasoner, ReasonerConfig, skills.document),
    "narrator": (Narrator, NarratorConfig, scenes.document),
}
LISTS = (
    words.CITIES,
    words.NAMES,
    words.TOPICS,
    words.PLAIN_NOUNS,
    words.ITEMS,
    words.OBJECTS,
    words.TICKERS,
    words.ADVERBS,
)


def slot_words() -> set[str]:
    """Words that may be values to copy; they never merge with a space."""
    return {word for entries in LISTS for entry in entries for word in entry.split()}


def make_tokenizer(name: str, path: Path, seed: int) -> tokenizer.Tokenizer:
    """Trains the vocabulary on a sample of the training documents, unless it is there already."""
    if not path.exists():
        rng, document = random.Random(seed), MODELS[name][2]
        texts = ["".join(text for text, _ in document(rng)) for _ in range(20_000)]
        extra = tokenizer.TAGS + (tokenizer.SCHEMA if name == "reasoner" else [])
        tokenizer.train(texts, 1000, 420, slot_words(), extra).save(path)
    return tokenizer.Tokenizer.load(path)


def load(name: str, folder: Path) -> tuple[torch.nn.Module, tokenizer.Tokenizer]:
    """The model of the last checkpoint."""
    vocabulary = tokenizer.Tokenizer.load(folder / f"{name}-tokenizer.json")
    kind, config, _ = MODELS[name]
    model = kind(config(len(vocabulary.tokens)))
    model.load_state_dict(torch.load(folder / f"{name}.pt", map_location="cpu")["model"])
    return model.eval(), vocabulary


def averaged(name: str, parts: list[str]) -> dict[str, torch.Tensor]:
    """The weighted mean of the weights of several checkpoints, given as FOLDER=PART."""
    mean: dict[str, torch.Tensor] = {}
    for folder, part in (entry.rsplit("=", 1) for entry in parts):
        weights = torch.load(Path(folder) / f"{name}.pt", map_location="cpu")["model"]
        for key, value in weights.items():
            # Counters of the routing are whole numbers: those of the last checkpoint count.
            mean[key] = mean.get(key, 0) + float(part) * value if value.is_floating_point() else value
    return mean


def main() -> None:
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("command", choices=("train", "export"))
    parser.add_argument("model", choices=tuple(MODELS))
    parser.add_argument("--tokens", type=float, default=25.0, help="millions of tokens to train on, from the start on")
    parser.add_argument(
        "--decay", type=float, default=0.6, help="the last part of them, in which the learning rate falls to zero"
    )
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument(
        "--from", type=Path, dest="start", metavar="GGUF", help="go on from an exported model and its vocabulary"
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="single-threaded processes that share each step's rows (CPU)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=8, help="rows of tokens per step")
    parser.add_argument("--length", type=int, default=512, help="tokens per row; longer documents are left out")
    parser.add_argument("--work", type=Path, default=Path("demo-work"), help="checkpoints and interim exports")
    parser.add_argument(
        "--shallow",
        action="store_true",
        help="the reasoner's first stage: four layers, which the next stage grows to eight",
    )
    parser.add_argument(
        "--only-mtp", action="store_true", help="train nothing but the reasoner's MTP block, for two guesses in a row"
    )
    parser.add_argument(
        "--compile", action="store_true", help="compile the blocks: needs a C++ compiler, gains a third"
    )
    parser.add_argument(
        "--average", nargs="+", metavar="FOLDER=PART", help="export the weighted mean of these folders' checkpoints"
    )
    parser.add_argument("--f32", action="store_true", help="export unquantized, to compare graphs")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    path = args.work / f"{args.model}-tokenizer.json"
    if args.start and not path.exists():
        export.read(args.start)[1].save(path)
    vocabulary = make_tokenizer(args.model, path, args.seed)
    (args.work / f"{args.model}.rendezvous").unlink(missing_ok=True)
    output = args.work / f"{args.model}.gguf"
    if args.command == "export":
        model, _ = load(args.model, args.work)
        if args.average:
            model.load_state_dict(averaged(args.model, args.average))
        export.write(model, vocabulary, output, args.f32)
        print(f"{output}: {output.stat().st_size:,} bytes")
        return
    if args.workers > 1:
        # Workers end with this process, however it ends.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        torch.multiprocessing.spawn(train, (args,), args.workers, daemon=True)
    else:
        train(0, args)


def train(rank: int, args: argparse.Namespace) -> None:
    """One of `args.workers` equal processes; small models gain more from processes than from threads."""
    if args.workers > 1:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo",
            init_method=f"file://{args.work.absolute()}/{args.model}.rendezvous",
            rank=rank,
            world_size=args.workers,
        )
    torch.manual_seed(args.seed)
    kind, config, document = MODELS[args.model]
    path, output = args.work / f"{args.model}-tokenizer.json", args.work / f"{args.model}.gguf"
    vocabulary = tokenizer.Tokenizer.load(path)
    checkpoint, first_stage = args.work / f"{args.model}.pt", args.work / f"{args.model}-shallow.pt"
    if args.shallow:
        checkpoint, output, config = first_stage, args.work / f"{args.model}-shallow.gguf", shallow
    model = kind(config(len(vocabulary.tokens)))
    if args.start:
        model = export.read(args.start)[0]
        if isinstance(model, Reasoner):
            model.habits = True
            if args.only_mtp:
                model.only_mtp = True
                model.requires_grad_(False).mtp.requires_grad_(True)
    elif not args.shallow and first_stage.exists() and not checkpoint.exists():
        grow(torch.load(first_stage, map_location="cpu")["model"], model)

    def log(line: str) -> None:
        if rank == 0:
            print(line, flush=True)

    log(f"{args.model}: {sum(p.numel() for p in model.parameters()):,} parameters, vocabulary {len(vocabulary.tokens)}")
    plan = training.Plan(
        args.tokens * 1e6,
        rows=args.rows // args.workers,
        length=args.length,
        muon_rate=0.006 * args.rate,
        adam_rate=0.003 * args.rate,
        decay=args.decay,
        progress=1.0 if args.start else None,
        seed=args.seed,
        compile=args.compile,
    )
    training.run(
        model,
        path,
        document,
        plan,
        checkpoint,
        log,
        lambda _: export.write(model, vocabulary, output),
    )
