"""Writes the trained models as GGUF, Q8_0 where rows allow it and F32 for the small sensitive tensors."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from torch import Tensor, nn

from .chat import TEMPLATE
from .narrator import Narrator
from .reasoner import Reasoner
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
    data = np.ascontiguousarray(value.detach().float().cpu().numpy())
    if f32 or data.ndim < 2 or data.shape[-1] % 32 or any(part in name for part in KEEP_F32):
        writer.add_tensor(name, data)
    else:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)


def _weights(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Tensor names are the attribute names; only suffixes and two wrappers differ."""
    out: dict[str, Tensor] = {}
    for name, value in module.state_dict().items():
        name = name.replace("mixer.", "").replace("moe.", "").replace("block.", "")
        if name.endswith("a_log"):
            out[f"{prefix}ssm_a"] = -value.exp()
        elif name.endswith("ssm_dt"):
            out[f"{prefix}ssm_dt.bias"] = value
        else:
            out[prefix + name.removesuffix(".weight") + ".weight"] = value
    return out


def _reasoner(writer: gguf.GGUFWriter, model: Reasoner) -> dict[str, Tensor]:
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
    weights: dict[str, Tensor] = {}
    for i, block in enumerate(model.blk):
        weights |= _weights(f"blk.{i}.", block)
    last = f"blk.{c.layers}."
    for name, value in _weights(last, model.mtp).items():
        part = name.removeprefix(last)
        nextn = part.startswith(("eh_proj", "enorm", "hnorm", "shared_head"))
        weights[f"{last}nextn.{part}" if nextn else name] = value
    return weights


def _attention(writer: gguf.GGUFWriter, heads: int, kv_heads: int, head: int, rotated: int, base: float) -> None:
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(rotated)
    writer.add_rope_freq_base(base)


def _narrator(writer: gguf.GGUFWriter, model: Narrator) -> dict[str, Tensor]:
    c = model.config
    writer.add_block_count(c.layers)
    writer.add_vocab_size(c.vocab)
    writer.add_context_length(c.context)
    writer.add_embedding_length(c.width)
    writer.add_feed_forward_length(c.hidden)
    _attention(writer, c.heads, c.kv_heads, c.head, c.head, c.rope_base)
    weights: dict[str, Tensor] = {}
    for i, block in enumerate(model.blk):
        weights |= _weights(f"blk.{i}.", block)
    return weights


def write(model: Reasoner | Narrator, tokenizer: Tokenizer, path: Path, f32: bool = False) -> None:
    """One GGUF file."""
    reasoner = isinstance(model, Reasoner)
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "qwen3next" if reasoner else "llama")
    writer.add_name("demo-reasoner" if reasoner else "demo-narrator")
    writer.add_description("Tiny demo model trained from scratch on generated text by scripts/demo")
    weights = _reasoner(writer, model) if reasoner else _narrator(writer, model)
    _tokenizer(writer, tokenizer)
    weights["token_embd.weight"] = model.token_embd.weight
    weights["output.weight"] = model.output.weight
    weights["output_norm.weight"] = model.output_norm.weight
    for name, value in weights.items():
        _tensor(writer, name, value, f32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)
