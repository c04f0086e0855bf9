"""Make a CPU build of vLLM take the decisions it would take on one rank of a GPU server.

Every patch here replaces a choice that depends on the device, never a size: which kernel class is picked decides in
vLLM which tensors a layer creates and how they are padded, so the oracle must pick the kernels of a GPU.  The reference
is a Hopper GPU (compute capability 9.0); Blackwell differs in the padding of 4-bit experts.
"""

# vLLM is imported inside functions because the environment must be set first; patching it means touching private
# names and giving replacements the signature of what they replace.
# ruff: noqa: PLC0415, SLF001, ARG001, ARG002, ARG005, PLR0917

from __future__ import annotations

import os
from typing import Any


class StubImplementation:
    """Stands in for an attention kernel, stream or event, which cannot exist without a GPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)

    def __getattr__(self, name: str) -> Any:
        """Every capability a caller asks about is absent."""
        if name.startswith("__"):
            raise AttributeError(name)
        return False


def prepare_environment() -> None:
    """Set what vLLM reads from the environment; must run before the first import of vLLM."""
    os.environ.update(
        VLLM_NO_USAGE_STATS="1",
        HF_HUB_OFFLINE="1",
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_LOGGING_LEVEL="CRITICAL",
        OMP_NUM_THREADS="1",
        # A fused kernel of Kimi K3 whose module needs a CUDA-only package.
        VLLM_KIMI_K3_GEMM_AR="0",
    )
    import torch

    # torchvision's CUDA build has no loadable operators here, and its import fails without these two names.
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_torchvision_library"] = library  # a collected Library takes its operators with it


def emulate_gpu() -> None:
    """Apply all patches; call once, after `prepare_environment`."""
    patch_torch()
    patch_registry()
    patch_attention()
    patch_moe()
    patch_linear()
    patch_online_quantization()
    register_remote_configs()


def patch_torch() -> None:
    """Let CPU-only torch pass the spots that ask about a device or move a meta tensor to one."""
    import torch

    # With bf16 instructions the CPU platform forces the Mamba state to float32; without AMX it refuses block fp8.
    torch.cpu._is_avx512_bf16_supported = lambda: False
    torch.cpu._is_amx_tile_supported = lambda: True
    # Models that overlap streams create streams and events in their constructors.
    torch.cuda.Event = torch.cuda.Stream = StubImplementation
    move = torch.nn.Module.to

    def stay_on_meta(module: Any, *args: Any, **kwargs: Any) -> Any:
        """Convert the dtype only: a meta tensor has no data to copy to a device."""
        dtype = torch._C._nn._parse_to(*args, **kwargs)[1]
        return module if dtype is None else move(module, dtype=dtype)

    torch.nn.Module.to = stay_on_meta


def patch_registry() -> None:
    """Inspect model classes in this process: a child process would lack the torchvision operators."""
    from vllm.model_executor.models import registry

    registry._run_in_subprocess = lambda function: function()


def sparse_backend() -> type:
    """FlashMLA sparse attention (DeepSeek V3.2, GLM 5) with the page layout of the real one and no kernel."""
    from vllm.v1.attention.backends.mla.flashmla_sparse import FlashMLASparseBackend

    class SparseBackend(FlashMLASparseBackend):
        """The real backend class decides about block sizes and bytes per token."""

        @staticmethod
        def get_impl_cls() -> type:
            return StubImplementation

    return SparseBackend


def patch_attention() -> None:
    """Use the block sizes of FlashAttention and FlashAttention MLA, and offer sparse MLA at all."""
    from vllm.platforms import cpu
    from vllm.v1.attention.backend import AttentionBackend, MultipleOf
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend
    from vllm.v1.attention.backends.mla.amx_mla import AMXMLABackend
    from vllm.v1.attention.backends.mla.cpu_mla import CPUMLABackend

    def block_sizes(kv_cache_spec: Any = None) -> list[Any]:
        """Any multiple of 16 tokens; the CPU kernels are pickier."""
        return [MultipleOf(16)]

    for backend in (CPUAttentionBackend, CPUMLABackend, AMXMLABackend):
        backend.get_supported_kernel_block_sizes = staticmethod(block_sizes)
        backend.supports_block_size = classmethod(AttentionBackend.supports_block_size.__func__)
    # FlashAttention takes any layout, which lets the other layers of a model decide.
    CPUAttentionBackend.supported_kv_cache_layouts = classmethod(lambda cls: None)
    globals()["SparseBackend"] = sparse_backend()
    choose = cpu.CpuPlatform.get_attn_backend_cls.__func__

    def choose_backend(cls: Any, selected: Any, attn_selector_config: Any, num_heads: int | None = None) -> str:
        """As on the CPU, except that sparse MLA exists."""
        if attn_selector_config.use_sparse:
            return f"{__name__}.SparseBackend"
        return choose(cls, selected, attn_selector_config, num_heads)

    cpu.CpuPlatform.get_attn_backend_cls = classmethod(choose_backend)


class CudaLike:
    """The current platform, claiming to be CUDA where one module asks for it."""

    def __init__(self, platform: Any) -> None:
        self._platform = platform

    def __getattr__(self, name: str) -> Any:
        """Answer everything else like the real platform."""
        return getattr(self._platform, name)

    def is_cuda_alike(self) -> bool:
        """The point of this class."""
        return True


def patch_moe() -> None:
    """Pick the expert kernels of a Hopper GPU: Triton for 16 and 8 bit, Marlin for 4 bit."""
    import vllm.model_executor.layers.fused_moe.config as moe_config
    from vllm.model_executor.layers.fused_moe.experts.marlin_moe import MarlinExperts
    from vllm.model_executor.layers.fused_moe.experts.triton_moe import TritonExperts
    from vllm.model_executor.layers.fused_moe.oracle import int_wna16, mxfp4, unquantized

    moe_config.current_platform = CudaLike(moe_config.current_platform)
    for experts in (MarlinExperts, TritonExperts):
        experts._supports_current_device = staticmethod(lambda: True)
    for choice in ("_get_priority_backends", "_get_priority_backends_for_gpt_oss"):
        setattr(mxfp4, choice, lambda *args: [mxfp4.Mxfp4MoeBackend.MARLIN])
    int_wna16._get_priority_backends = lambda *args: [int_wna16.WNA16MoEBackend.MARLIN]
    unquantized._get_priority_backends = lambda *args: [unquantized.UnquantizedMoeBackend.TRITON]


def patch_linear() -> None:
    """Offer the Marlin kernels for 4-bit and MXFP8 linear layers, which is what Hopper uses."""
    from vllm.model_executor.kernels import linear
    from vllm.model_executor.kernels.linear.scaled_mm.cpu import CPUFp8BlockScaledMMKernel
    from vllm.platforms import PlatformEnum

    for table, kernel in (
        (linear._POSSIBLE_NVFP4_KERNELS, linear.MarlinNvFp4LinearKernel),
        (linear._POSSIBLE_MXFP8_KERNELS, linear.MarlinMxfp8LinearKernel),
    ):
        kernel.is_supported = classmethod(lambda cls, compute_capability=None: (True, None))
        table[PlatformEnum.CPU] = [kernel]
    # Block fp8 creates the same tensors for every kernel; this one asks for an AMX processor.
    CPUFp8BlockScaledMMKernel.is_supported = classmethod(lambda cls, compute_capability=None: (True, None))


def patch_online_quantization() -> None:
    """Let online fp8 run on tensors without data: shapes and dtypes stay vLLM's, the arithmetic goes."""
    import torch
    import vllm.model_executor.layers.quantization.online.fp8 as online
    from vllm.model_executor.utils import replace_parameter

    def quantize(tensor: Any, scale: Any = None, **kwargs: Any) -> tuple[Any, Any]:
        """The shapes `scaled_fp8_quant` returns when given a scale."""
        return torch.empty_like(tensor, dtype=torch.float8_e4m3fn), scale

    def keep(method: Any, layer: Any, w13: Any, w2: Any, w13_scale: Any, w2_scale: Any, **kwargs: Any) -> None:
        """Store the quantized experts without reordering them for a kernel."""
        replace_parameter(layer, "w13_weight", w13)
        replace_parameter(layer, "w2_weight", w2)
        replace_parameter(layer, f"w13_{method.weight_scale_name}", w13_scale)
        replace_parameter(layer, f"w2_{method.weight_scale_name}", w2_scale)

    online.ops.scaled_fp8_quant = quantize
    # The maximum over all ranks has the shape of the maximum of one.
    online.amax_for_tp_weight_quant = online.amax_for_moe_weight_quant = lambda amax, *args: amax
    online._Fp8OnlineMoEBase._setup_kernel = keep


def quantize_online(model: Any) -> int:
    """Run the step in which vLLM quantizes 16-bit weights while loading; the number of layers it touched."""
    touched = 0
    for layer in model.modules():
        method = getattr(layer, "quant_method", None)
        # Only methods that quantize while loading keep their 16-bit weights on the meta device.
        if getattr(method, "uses_meta_device", False):
            kernel = getattr(method, "fp8_linear", None)
            if kernel is not None:
                kernel.process_weights_after_loading = lambda layer: None
            method.process_weights_after_loading(layer)
            touched += 1
    return touched


class AttributeDict(dict[str, Any]):
    """A dictionary that can be read by attribute and still be written as JSON."""

    def __getattr__(self, name: str) -> Any:
        """Read an entry."""
        if name not in self:
            raise AttributeError(name)
        return self[name]


def register_remote_configs() -> None:
    """Config classes that live in model repositories as remote code, reduced to what vLLM's model classes read."""
    from transformers import AutoConfig, PretrainedConfig, Qwen2Config

    class MiMoConfig(Qwen2Config):
        """Qwen2 with extra prediction layers, which vLLM does not load."""

        model_type = "mimo"

    class NemotronNasConfig(PretrainedConfig):
        """Llama whose layers differ; `block_configs` holds one entry per layer."""

        model_type = "nemotron-nas"

        def __init__(self, block_configs: Any = (), **kwargs: Any) -> None:
            # vLLM reads the blocks by attribute.
            self.block_configs = [
                AttributeDict({part: AttributeDict(values) for part, values in block.items()})
                for block in block_configs
            ]
            for name, value in kwargs.items():
                setattr(self, name, value)
            super().__init__(**kwargs)

    for config in (MiMoConfig, NemotronNasConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
