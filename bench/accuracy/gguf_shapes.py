"""The GGUF form of a Hugging Face config.json: metadata keys and tensor shapes, as llama.cpp's converter writes them.

Only what decides memory use is faithful. Names and shapes were read from `load_arch_tensors` of llama.cpp's model
classes, which refuse to load a file that lacks a tensor or has one of another shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.accuracy import gguf_metadata as keys
from bench.accuracy.gguf_metadata import Config, Metadata, expert_count, head_length, is_windowed

# A tensor: its name, and its dimensions in ggml's order (the length of a row comes first).
Tensor = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Shape:
    """One model before quantization. Metadata keys lack the architecture that GGUF puts in front of them."""

    architecture: str
    layers: int
    vocab_size: int
    metadata: Metadata
    tensors: list[Tensor]


def shape_of(config: Config) -> Shape:
    """The shape of the model that `config` (a parsed config.json) describes; KeyError if its class is not known."""
    text = {**config, **config.get("text_config", {})}
    architecture, layer, more_metadata = _CLASSES[config["architectures"][0]]
    if architecture == "qwen35" and "num_experts" in text:
        architecture = "qwen35moe"
    metadata = keys.common_metadata(text) | more_metadata(text)
    tensors = list(_top_tensors(text, architecture))
    for index in range(text["num_hidden_layers"]):
        tensors += [(f"blk.{index}.{name}", dimensions) for name, dimensions in layer(text, index)]
    return Shape(architecture, text["num_hidden_layers"], text["vocab_size"], metadata, tensors)


def _top_tensors(config: Config, architecture: str) -> Iterator[Tensor]:
    """The tensors outside layers. With tied embeddings the output layer is the token embedding once more."""
    embedding = (config["hidden_size"], config["vocab_size"])
    always_tied = architecture in {"gemma3", "gemma4", "command-r", "cohere2"}
    yield "token_embd.weight", embedding
    yield "output_norm.weight", (config["hidden_size"],)
    if not always_tied and not config.get("tie_word_embeddings"):
        yield "output.weight", embedding
    if architecture == "llama" and (config.get("rope_scaling") or {}).get("rope_type") == "llama3":
        yield "rope_freqs.weight", (head_length(config) // 2,)
    if architecture == "gemma4":
        yield "rope_freqs.weight", (config["global_head_dim"] // 2,)


def _attention(
    config: Config, *, head_dim: int, kv_heads: int, query_parts: int = 1, value: bool = True
) -> Iterator[Tensor]:
    """Grouped-query attention. `query_parts` is 2 where the query projection also makes an output gate."""
    hidden, queries = config["hidden_size"], config["num_attention_heads"] * head_dim
    yield "attn_q.weight", (hidden, queries * query_parts)
    yield "attn_k.weight", (hidden, kv_heads * head_dim)
    if value:
        yield "attn_v.weight", (hidden, kv_heads * head_dim)
    yield "attn_output.weight", (queries, hidden)


def _plain_attention(config: Config) -> Iterator[Tensor]:
    return _attention(config, head_dim=head_length(config), kv_heads=config["num_key_value_heads"])


def _norms(config: Config, *names: str) -> Iterator[Tensor]:
    for name in names:
        yield f"{name}.weight", (config["hidden_size"],)


def _head_norms(head_dim: int) -> Iterator[Tensor]:
    yield "attn_q_norm.weight", (head_dim,)
    yield "attn_k_norm.weight", (head_dim,)


def _gated(hidden: int, inner: int, suffix: str = "", experts: int = 0) -> Iterator[Tensor]:
    """A gated feed-forward block: gate, up and down, for `experts` experts if that is not 0."""
    count = (experts,) if experts else ()
    yield f"ffn_gate{suffix}.weight", (hidden, inner, *count)
    yield f"ffn_up{suffix}.weight", (hidden, inner, *count)
    yield f"ffn_down{suffix}.weight", (inner, hidden, *count)


def _routed(config: Config, inner: int) -> Iterator[Tensor]:
    experts = expert_count(config)
    yield "ffn_gate_inp.weight", (config["hidden_size"], experts)
    yield from _gated(config["hidden_size"], inner, "_exps", experts)


def _llama_layer(config: Config, _: int) -> Iterator[Tensor]:
    yield from _norms(config, "attn_norm", "ffn_norm")
    yield from _plain_attention(config)
    if expert_count(config):
        yield from _routed(config, config["intermediate_size"])
    else:
        yield from _gated(config["hidden_size"], config["intermediate_size"])


def _qwen2_layer(config: Config, index: int) -> Iterator[Tensor]:
    yield from _llama_layer(config, index)
    kv = config["num_key_value_heads"] * head_length(config)
    yield "attn_q.bias", (config["hidden_size"],)
    yield "attn_k.bias", (kv,)
    yield "attn_v.bias", (kv,)


def _qwen3_layer(config: Config, index: int) -> Iterator[Tensor]:
    yield from _llama_layer(config, index)
    yield from _head_norms(head_length(config))


def _qwen3moe_layer(config: Config, _: int) -> Iterator[Tensor]:
    yield from _norms(config, "attn_norm", "ffn_norm")
    yield from _plain_attention(config)
    yield from _head_norms(head_length(config))
    yield from _routed(config, config["moe_intermediate_size"])


def _command_r_layer(config: Config, _: int) -> Iterator[Tensor]:
    yield from _norms(config, "attn_norm")
    yield from _plain_attention(config)
    yield from _gated(config["hidden_size"], config["intermediate_size"])


def _gemma3_layer(config: Config, _: int) -> Iterator[Tensor]:
    yield from _norms(config, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    yield from _plain_attention(config)
    yield from _head_norms(head_length(config))
    yield from _gated(config["hidden_size"], config["intermediate_size"])


def _gemma4_layer(config: Config, index: int) -> Iterator[Tensor]:
    windowed = is_windowed(config, index)
    head_dim = config["head_dim"] if windowed else config["global_head_dim"]
    yield from _norms(config, "attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
    # Full layers use their keys as values.
    yield from _attention(
        config,
        head_dim=head_dim,
        kv_heads=config["num_key_value_heads" if windowed else "num_global_key_value_heads"],
        value=windowed or not config["attention_k_eq_v"],
    )
    yield from _head_norms(head_dim)
    yield from _gated(config["hidden_size"], config["intermediate_size"])
    if expert_count(config):
        yield from _norms(config, "pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2")
        hidden, inner, experts = config["hidden_size"], config["moe_intermediate_size"], expert_count(config)
        yield "ffn_gate_inp.weight", (hidden, experts)
        yield "ffn_gate_inp.scale", (hidden,)
        yield "ffn_gate_up_exps.weight", (hidden, 2 * inner, experts)
        yield "ffn_down_exps.weight", (inner, hidden, experts)


def _gpt_oss_layer(config: Config, _: int) -> Iterator[Tensor]:
    hidden, inner, experts = config["hidden_size"], config["intermediate_size"], expert_count(config)
    yield from _norms(config, "attn_norm", "post_attention_norm")
    yield from _plain_attention(config)
    yield "attn_sinks.weight", (config["num_attention_heads"],)
    for name, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads"), ("v", "num_key_value_heads")):
        yield f"attn_{name}.bias", (config[heads] * head_length(config),)
    yield "attn_output.bias", (hidden,)
    yield from _routed(config, inner)
    yield "ffn_gate_inp.bias", (experts,)
    for name, length in (("gate", inner), ("up", inner), ("down", hidden)):
        yield f"ffn_{name}_exps.bias", (length, experts)


def _deepseek2_layer(config: Config, index: int) -> Iterator[Tensor]:
    hidden, heads, rank = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    nope, rope, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    yield from _norms(config, "attn_norm", "ffn_norm")
    if query_rank := config.get("q_lora_rank"):
        yield "attn_q_a_norm.weight", (query_rank,)
        yield "attn_q_a.weight", (hidden, query_rank)
        yield "attn_q_b.weight", (query_rank, heads * (nope + rope))
    else:
        yield "attn_q.weight", (hidden, heads * (nope + rope))
    yield "attn_kv_a_norm.weight", (rank,)
    yield "attn_kv_a_mqa.weight", (hidden, rank + rope)
    yield "attn_k_b.weight", (nope, rank, heads)
    yield "attn_v_b.weight", (rank, value, heads)
    yield "attn_output.weight", (heads * value, hidden)
    if index < config["first_k_dense_replace"]:
        yield from _gated(hidden, config["intermediate_size"])
        return
    yield from _routed(config, config["moe_intermediate_size"])
    yield "exp_probs_b.bias", (expert_count(config),)
    yield from _gated(hidden, config["moe_intermediate_size"] * config["n_shared_experts"], "_shexp")


def _qwen35_layer(config: Config, index: int) -> Iterator[Tensor]:
    hidden = config["hidden_size"]
    yield from _norms(config, "attn_norm", "post_attention_norm")
    if config["layer_types"][index] == "linear_attention":
        yield from _delta_net(config)
    else:
        kv_heads = config["num_key_value_heads"]
        yield from _attention(config, head_dim=head_length(config), kv_heads=kv_heads, query_parts=2)
        yield from _head_norms(head_length(config))
    if not expert_count(config):
        yield from _gated(hidden, config["intermediate_size"])
        return
    yield from _routed(config, config["moe_intermediate_size"])
    yield "ffn_gate_inp_shexp.weight", (hidden,)
    yield from _gated(hidden, config["shared_expert_intermediate_size"], "_shexp")


def _delta_net(config: Config) -> Iterator[Tensor]:
    hidden, value_heads = config["hidden_size"], config["linear_num_value_heads"]
    key_length = config["linear_num_key_heads"] * config["linear_key_head_dim"]
    value_length = value_heads * config["linear_value_head_dim"]
    yield "attn_qkv.weight", (hidden, 2 * key_length + value_length)
    yield "attn_gate.weight", (hidden, value_length)
    yield "ssm_conv1d.weight", (config["linear_conv_kernel_dim"], 2 * key_length + value_length)
    yield "ssm_dt.bias", (value_heads,)
    yield "ssm_a", (value_heads,)
    yield "ssm_beta.weight", (hidden, value_heads)
    yield "ssm_alpha.weight", (hidden, value_heads)
    yield "ssm_norm.weight", (config["linear_value_head_dim"],)
    yield "ssm_out.weight", (value_length, hidden)


_Layer = Callable[[Config, int], Iterator[Tensor]]
# By the class that config.json names: the GGUF architecture, a layer's tensors, and metadata beyond the common keys.
_CLASSES: dict[str, tuple[str, _Layer, Callable[[Config], Metadata]]] = {
    "LlamaForCausalLM": ("llama", _llama_layer, keys.no_metadata),
    "MixtralForCausalLM": ("llama", _llama_layer, keys.no_metadata),
    "Qwen2ForCausalLM": ("qwen2", _qwen2_layer, keys.no_metadata),
    "Qwen3ForCausalLM": ("qwen3", _qwen3_layer, keys.no_metadata),
    "Qwen3MoeForCausalLM": ("qwen3moe", _qwen3moe_layer, keys.moe_metadata),
    "Gemma3ForConditionalGeneration": ("gemma3", _gemma3_layer, keys.window_metadata),
    "Gemma4ForConditionalGeneration": ("gemma4", _gemma4_layer, keys.gemma4_metadata),
    "GptOssForCausalLM": ("gpt-oss", _gpt_oss_layer, keys.gpt_oss_metadata),
    "DeepseekV2ForCausalLM": ("deepseek2", _deepseek2_layer, keys.deepseek2_metadata),
    "DeepseekV3ForCausalLM": ("deepseek2", _deepseek2_layer, keys.deepseek2_metadata),
    "CohereForCausalLM": ("command-r", _command_r_layer, keys.cohere_metadata),
    "Cohere2ForCausalLM": ("cohere2", _command_r_layer, keys.cohere_metadata),
    "Qwen3_5ForConditionalGeneration": ("qwen35", _qwen35_layer, keys.qwen35_metadata),
    "Qwen3_5MoeForConditionalGeneration": ("qwen35", _qwen35_layer, keys.qwen35_metadata),
}
