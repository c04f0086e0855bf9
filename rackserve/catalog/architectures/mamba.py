"""Decoders in which most layers are Mamba 2.

Nemotron H has attention, Mamba, experts and dense blocks as layers of their own; Granite 4 has attention or Mamba and
then experts in each layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.catalog.architectures.config import Config
from rackserve.catalog.architectures.decoder import Traits, attention_parts, dimensions, expert_count
from rackserve.catalog.architectures.parts import attention, experts, feed_forward, norms, router, vector
from rackserve.domain.shape import AttentionCache, Layer, Matrix, StateCache

_LETTERS = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}


@dataclass(frozen=True, slots=True)
class Mamba:
    """Sizes of a Mamba 2 mixer. width: heads x head size, or what `expand` makes of the hidden size."""

    prefix: str
    heads: int
    head: int
    state: int
    groups: int
    kernel: int
    bias: bool
    projection_bias: bool
    precise: bool

    def matrices(self, hidden: int) -> tuple[Matrix, ...]:
        """As vLLM's mamba_mixer2.py. What all heads of a group share is repeated where GPUs outnumber the groups."""
        width = self.heads * self.head
        shared = 2 * self.groups * self.state
        conv = f"{self.prefix}.conv1d"
        into, bias = f"{self.prefix}.in_proj", self.projection_bias
        return (
            Matrix(into, 2 * width + self.heads, hidden, "column", bias=bias),
            Matrix(into, shared, hidden, "column", heads=self.groups, bias=bias),
            Matrix(conv, width, self.kernel, "column", linear=False, bias=self.bias),
            Matrix(conv, shared, self.kernel, "column", heads=self.groups, linear=False, bias=self.bias),
            vector(f"{self.prefix}.A", self.heads, fp32=True, split=True),
            vector(f"{self.prefix}.D", 2 * self.heads, split=True),
            vector(f"{self.prefix}.norm", width, split=True),
            Matrix(f"{self.prefix}.out_proj", hidden, width, "row", bias=bias),
        )

    def cache(self) -> StateCache:
        """The state it keeps: the last inputs of its convolution, and a matrix for each head."""
        convolved = self.heads * self.head + 2 * self.groups * self.state
        return StateCache(
            conv=convolved * (self.kernel - 1),
            ssm=self.heads * self.head * self.state,
            ssm_bytes=4 if self.precise else 2,
            kind="mamba2",
        )


def nemotron_h_layers(config: Config, traits: Traits) -> list[Layer]:
    """As vLLM's nemotron_h.py: each layer is one of four kinds, written as a letter or a word."""
    hidden = config.integer("hidden_size")
    kinds = _kinds(config)
    mixer = Mamba(
        "mixer",
        heads=config.integer("mamba_num_heads", most=2**20),
        head=config.integer("mamba_head_dim"),
        state=config.integer("ssm_state_size"),
        groups=config.integer("n_groups", most=2**20),
        kernel=config.integer("conv_kernel", most=4096),
        bias=config.flag("use_conv_bias", default=True),
        projection_bias=config.flag("mamba_proj_bias", default=config.flag("use_bias", default=False)),
        # vLLM keeps it in float32 for this family unless the config says otherwise (models/config.py).
        precise=config.text("mamba_ssm_cache_dtype", "float32") == "float32",
    )
    bias = config.flag("mlp_bias", default=False)
    made = {"mamba": Layer((*mixer.matrices(hidden), *norms(hidden, 1)), (mixer.cache(),))}
    if "attention" in kinds:
        made["attention"] = _attention_layer(config.with_defaults({"num_hidden_layers": len(kinds)}), traits)
    if "mlp" in kinds:
        dense = feed_forward(hidden, _dense_width(config), prefix="mixer", gated=False, bias=bias)
        made["mlp"] = Layer((*dense, *norms(hidden, 1)))
    if "moe" in kinds:
        made["moe"] = Layer((*_latent_experts(config, hidden, bias=bias), *norms(hidden, 1)))
    return [made[kind] for kind in kinds]


def _kinds(config: Config) -> list[str]:
    layers = config.integer("num_hidden_layers", default=0, least=0, most=4096)
    if config.has("layers_block_type"):
        kinds = config.texts("layers_block_type")
    else:
        kinds = [_LETTERS.get(letter, letter) for letter in config.text("hybrid_override_pattern")]
    name = "layers_block_type" if config.has("layers_block_type") else "hybrid_override_pattern"
    strange = sorted({kind for kind in kinds if kind not in _LETTERS.values()})
    if strange:
        config.problem(name, f"{', '.join(strange)[:60]} is not known", hint=f"known: {', '.join(_LETTERS.values())}")
        return []
    if not kinds or (layers and len(kinds) != layers):
        config.problem(name, f"has {len(kinds)} entries for {layers} layers")
        return []
    return kinds


def _dense_width(config: Config) -> int:
    if isinstance(config.values.get("intermediate_size"), list):
        widths = config.integers("intermediate_size")
        if len(set(widths)) != 1:
            config.problem("intermediate_size", "layers of different widths are not known")
            return 1
        return widths[0]
    return config.integer("intermediate_size")


def _attention_layer(config: Config, traits: Traits) -> Layer:
    size = dimensions(config)
    matrices = attention(
        size.hidden,
        size.heads,
        size.kv_heads,
        size.head_dim,
        size.head_dim,
        parts=attention_parts(config, traits),
        prefix="mixer",
    )
    cache = AttentionCache(size.kv_heads, size.head_dim, size.head_dim)
    return Layer((*matrices, *norms(size.hidden, 1)), (cache,))


def _latent_experts(config: Config, hidden: int, *, bias: bool) -> tuple[Matrix, ...]:
    """Experts without a gate, which may work in a narrower space than the model."""
    count, width = expert_count(config), config.integer("moe_intermediate_size")
    latent = config.optional("moe_latent_size")
    shared = config.integer("n_shared_experts", default=0, least=0)
    between: tuple[Matrix, ...] = ()
    if latent:
        between = (
            Matrix("mixer.fc1_latent_proj", latent, hidden, bias=bias),
            Matrix("mixer.fc2_latent_proj", hidden, latent, bias=bias),
        )
    beside: tuple[Matrix, ...] = ()
    if shared:
        own = config.integer("moe_shared_expert_intermediate_size") * shared
        beside = feed_forward(hidden, own, prefix="mixer.shared_experts", gated=False, bias=bias)
    return (
        *router(hidden, count, correction=True, fp32=True, prefix="mixer"),
        *experts(latent or hidden, width, count, gated=False, prefix="mixer.experts"),
        *between,
        *beside,
    )


def granite_hybrid_layers(config: Config, traits: Traits) -> list[Layer]:
    """As vLLM's granitemoehybrid.py."""
    size = dimensions(config)
    mixer = Mamba(
        "mamba",
        heads=config.integer("mamba_n_heads", most=2**20),
        head=config.integer("mamba_d_head"),
        state=config.integer("mamba_d_state"),
        groups=config.integer("mamba_n_groups", most=2**20),
        kernel=config.integer("mamba_d_conv", most=4096),
        bias=config.flag("mamba_conv_bias", default=True),
        projection_bias=config.flag("mamba_proj_bias", default=False),
        precise=config.text("mamba_ssm_cache_dtype") == "float32",
    )
    full = attention(
        size.hidden, size.heads, size.kv_heads, size.head_dim, size.head_dim, parts=attention_parts(config, traits)
    )
    cache = AttentionCache(size.kv_heads, size.head_dim, size.head_dim)
    after = (*_granite_block(config, size.hidden, size.intermediate), *norms(size.hidden, 2))
    made = {
        "mamba": Layer((*mixer.matrices(size.hidden), *after), (mixer.cache(),)),
        "attention": Layer((*full, *after), (cache,)),
    }
    # Newer files write the words of other hybrid models.
    made |= {"linear_attention": made["mamba"], "full_attention": made["attention"]}
    kinds = config.texts("layer_types") or config.texts("layers_block_type")
    if len(kinds) != size.layers or any(kind not in made for kind in kinds):
        config.problem("layer_types", f"expected {size.layers} entries, each mamba or attention")
        return []
    return [made[kind] for kind in kinds]


def _granite_block(config: Config, hidden: int, width: int) -> tuple[Matrix, ...]:
    shared = config.integer("shared_intermediate_size", default=0, least=0)
    dense = feed_forward(hidden, shared, prefix="shared_mlp") if shared else ()
    if not config.integer("num_local_experts", default=0, least=0):
        return dense or feed_forward(hidden, width)
    count = expert_count(config)
    return (*router(hidden, count), *experts(hidden, width, count, prefix="block_sparse_moe.experts"), *dense)
