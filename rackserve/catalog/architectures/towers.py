"""Parts of which towers for images and sound are built, split as vLLM 0.33 splits them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rackserve.domain.shape import Matrix, Split


@dataclass(frozen=True, slots=True)
class Encoder:
    """A stack of equal transformer layers.

    norms: per layer. norm_bias: whether a norm is a LayerNorm (with a bias) and not an RMSNorm. split: whether tensor
    parallelism divides it; towers that vLLM takes from transformers are repeated on every GPU. quantizable: whether
    quantization reaches its attention and its feed-forward block. inner: width of attention where it is not the hidden.
    units: heads where vLLM leaves a tower whole that its heads cannot be divided by, 0 where it insists.
    """

    prefix: str
    layers: int
    hidden: int
    intermediate: int
    gated: bool = False
    bias: bool = True
    norms: int = 2
    norm_bias: bool = True
    split: bool = True
    quantizable: tuple[bool, bool] = (True, True)
    inner: int = 0
    units: int = 0
    mlp_bias: bool | None = None

    def matrices(self) -> tuple[Matrix, ...]:
        """All layers, each kind of matrix once with its count."""
        inner = self.inner or self.hidden
        wide = self.intermediate * (2 if self.gated else 1)
        attends, feeds = self.quantizable
        mlp_bias = self.bias if self.mlp_bias is None else self.mlp_bias
        return (
            *self._pair("attn.qkv", "attn.proj", 3 * inner, inner, linear=attends, bias=self.bias),
            *self._pair("mlp.fc1", "mlp.fc2", wide, self.intermediate, linear=feeds, bias=mlp_bias),
            norm(f"{self.prefix}.norm", self.hidden * self.norms, bias=self.norm_bias, count=self.layers),
        )

    def _pair(self, into: str, out: str, rows: int, columns: int, *, linear: bool, bias: bool) -> tuple[Matrix, Matrix]:
        """A matrix from the hidden size to `rows`, and one from `columns` back to it."""
        first: Split = "column" if self.split else "replicated"
        second: Split = "row" if self.split else "replicated"

        def made(name: str, rows: int, columns: int, split: Split) -> Matrix:
            name = f"{self.prefix}.{name}"
            return Matrix(name, rows, columns, split, count=self.layers, linear=linear, bias=bias, units=self.units)

        return made(into, rows, self.hidden, first), made(out, self.hidden, columns, second)


def norm(name: str, size: int, *, bias: bool, count: int = 1) -> Matrix:
    """A LayerNorm (with a bias) or an RMSNorm."""
    return Matrix(name, size, 2 if bias else 1, count=count, linear=False)


def loose(name: str, rows: int, columns: int = 1, *, bias: bool = False, split: Literal["", "column"] = "") -> Matrix:
    """A table or a convolution: never quantized, and repeated on every GPU unless `split` says otherwise."""
    return Matrix(name, rows, columns, split or "replicated", linear=False, bias=bias)


def merger(prefix: str, wide: int, out: int, *, norm_size: int, norm_bias: bool, count: int = 1) -> tuple[Matrix, ...]:
    """Joins neighbouring patches and brings them to the language model's width (the Qwen family)."""
    return (
        norm(f"{prefix}.norm", norm_size, bias=norm_bias, count=count),
        Matrix(f"{prefix}.linear_fc1", wide, wide, "column", count=count, bias=True),
        Matrix(f"{prefix}.linear_fc2", out, wide, "row", count=count, bias=True),
    )
