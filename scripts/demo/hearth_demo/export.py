"""Writes the trained models as GGUF, Q8_0 where rows allow it and F32 for the small sensitive tensors; reads them back."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import torch
from torch import Tensor, nn

from .chat import TEMPLATE
from .narrator import Narrator, NarratorConfig
from .reasoner import Reasoner, ReasonerConfig
from .tokenizer import Tokenizer

KEEP_F32 = ("norm", "ssm_conv1d", "ssm_a", "ssm_dt", "ffn_gate_inp")


def _tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    kinds = gguf.TokenType
    learnt = len(tokenizer.tokens) - len(tokenizer.extra) - 3
    types = [kinds.NORMAL] * learnt + [kinds.CONTROL] * 3 + [kinds.USER_DEFINED] * len(tokenizer.extra)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(types)
    writer.add_token_merges([f"{a} {b}" for a, b in tokenizer.merges])
    writer.add_eos_token_id(tokenizer.end)
    writer.add_pad_token_id(tokenizer.pad)
    writer.add_bos_token_id(tokenizer.pad)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _tensor(writer: gguf.GGUFWriter, name: str, value: Tensor, f32: bool) -> None:
    data = value.detach().float().cpu()
    data = np.ascontiguousarray((-data.exp() if name.endswith("ssm_a") else data).numpy())
    if f32 or data.ndim < 2 or data.shape[-1] % 32 or any(part in name for part in KEEP_F32):
        writer.add_tensor(name, data)
    else:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)


def _weights(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Tensor names are the attribute names; only suffixes and the wrappers differ. `ssm_a` holds the logarithm here."""
    out: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        name = name.replace("mixer.", "").replace("moe.", "").replace("block.", "")
        if name.endswith("a_log"):
            out[f"{prefix}ssm_a"] = value
        elif name.endswith("ssm_dt"):
            out[f"{prefix}ssm_dt.bias"] = value
        else:
            out[prefix + name.removesuffix(".weight") + ".weight"] = value
    return out


def _reasoner(writer: gguf.GGUFWriter, model: Reasoner) -> None:
    c, arch = model.config, "qwen3next"
    writer.add_block_count(c.layers + 1)
    writer.add_uint32(f"{arch}.nextn_predict_layers", 1)
    writer.add_uint32(f"{arch}.full_attention_interval", c.attention_every)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.expert_hidden)
    writer.add_expert_count(c.experts)
    writer.add_expert_used_count(c.experts_used)
    writer.add_expert_feed_forward_length(c.expert_hidden)
    writer.add_expert_shared_feed_forward_length(c.shared_hidden)
    _attention(writer, c.heads, c.kv_heads, c.head, c.rope_dims, c.rope_base)
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_state_size(c.state)
    writer.add_ssm_group_count(c.k_heads)
    writer.add_ssm_time_step_rank(c.v_heads)
    writer.add_ssm_inner_size(c.state * c.v_heads)


def _attention(writer: gguf.GGUFWriter, heads: int, kv_heads: int, head: int, rotated: int, base: float) -> None:
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(rotated)
    writer.add_rope_freq_base(base)


def _narrator(writer: gguf.GGUFWriter, model: Narrator) -> None:
    c = model.config
    writer.add_block_count(c.layers)
    writer.add_vocab_size(c.vocab)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.hidden)
    _attention(writer, c.heads, c.kv_heads, c.head, c.head, c.rope_base)


def weights(model: Reasoner | Narrator) -> dict[str, Tensor]:
    """The model's own tensors by their names in the file."""
    out: dict[str, Tensor] = {}
    for i, block in enumerate(model.blk):
        out |= _weights(f"blk.{i}.", block)
    if isinstance(model, Reasoner):
        last = f"blk.{model.config.layers}."
        for name, value in _weights(last, model.mtp).items():
            part = name.removeprefix(last)
            nextn = part.startswith(("eh_proj", "enorm", "hnorm", "shared_head"))
            out[f"{last}nextn.{part}" if nextn else name] = value
    for name in ("token_embd", "output", "output_norm"):
        out[f"{name}.weight"] = getattr(model, name).weight
    return out


def write(model: Reasoner | Narrator, tokenizer: Tokenizer, path: Path, f32: bool = False) -> None:
    """One GGUF file."""
    reasoner = isinstance(model, Reasoner)
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "qwen3next" if reasoner else "llama")
    writer.add_name("demo-reasoner" if reasoner else "demo-narrator")
    writer.add_description("Tiny demo model trained from scratch on generated text by scripts/demo")
    (_reasoner if reasoner else _narrator)(writer, model)
    _tokenizer(writer, tokenizer)
    for name, value in weights(model).items():
        _tensor(writer, name, value, f32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def read(path: Path) -> tuple[Reasoner | Narrator, Tokenizer]:
    """A model and its vocabulary from a file that `write` made, to go on with the training."""
    file = gguf.GGUFReader(path)

    def field(name: str) -> list:
        return file.fields[f"tokenizer.ggml.{name}"].contents()

    kinds, tokens = field("token_type"), field("tokens")
    extra = [token for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.USER_DEFINED]
    tokenizer = Tokenizer([tuple(pair.split(" ")) for pair in field("merges")], extra)
    if tokenizer.tokens != tokens:
        raise ValueError(f"{path}: the vocabulary was not made by these scripts")
    reasoner = file.fields["general.architecture"].contents() == "qwen3next"
    model = Reasoner(ReasonerConfig(len(tokens))) if reasoner else Narrator(NarratorConfig(len(tokens)))
    own, stored = weights(model), {tensor.name: tensor for tensor in file.tensors}
    if own.keys() != stored.keys():
        raise ValueError(f"{path}: other tensors than this model has: {own.keys() ^ stored.keys()}")
    with torch.no_grad():
        for name, value in own.items():
            data = torch.from_numpy(gguf.quants.dequantize(stored[name].data, stored[name].tensor_type).copy())
            value.copy_((-data).log() if name.endswith("ssm_a") else data)
    return model, tokenizer
