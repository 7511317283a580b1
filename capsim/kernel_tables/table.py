"""What was measured of one kernel at one shape: seconds over one or two sizes, and the sum-roofline fitted to them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from capsim.hardware import Seconds
from capsim.kernel_tables.work import Work

CONTEXT = "context_tokens"
AXES: dict[str, tuple[str | None, str]] = {
    "memory_copy": (None, "bytes"), "memory_read": (None, "bytes"),
    "all_reduce": (None, "bytes"), "all_to_all": (None, "bytes"),
    "gemm": (None, "tokens"), "norm": (None, "tokens"), "kv_write": (None, "tokens"),
    "experts": (None, "tokens"), "experts_dense": (None, "tokens"),
    "decode_attention": ("sequences", CONTEXT), "sparse_attention": ("sequences", CONTEXT),
    "mla_decode": ("sequences", CONTEXT), "prefill_attention": ("new_tokens", CONTEXT),
}  # fmt: skip
"""Of each operation the size that tells its curves apart, and the size along a curve."""

Size = Annotated[float, Field(ge=0)]
Time = Annotated[float, Field(gt=0)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SumRoofline(_Spec):
    """t = call_s + byte_s · bytes + flop_s · flops."""

    call_s: Seconds
    byte_s: Seconds
    flop_s: Seconds

    def seconds(self, done: Work) -> float:
        return self.call_s + self.byte_s * done.bytes + self.flop_s * done.flops


class Curve(_Spec):
    """Seconds at rising sizes; ``at`` is the other size, such as the number of sequences."""

    at: Size = 1.0
    sizes: tuple[Size, ...] = Field(min_length=1)
    seconds: tuple[Time, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _paired(self) -> "Curve":
        if len(self.sizes) != len(self.seconds) or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError("needs as many seconds as sizes, and rising sizes")
        return self


class KernelTable(_Spec):
    """One implementation (``kernel``) of an operation at one shape, over the sizes named by ``AXES``.

    ``shape`` holds what stays the same: heads, features, formats and their bytes. Curves stand in the order of ``at``.
    """

    op: str
    kernel: str
    shape: dict[str, float | str]
    curves: tuple[Curve, ...] = Field(min_length=1)
    fit: SumRoofline

    @model_validator(mode="after")
    def _ordered(self) -> "KernelTable":
        if self.op not in AXES:
            raise ValueError(f"unknown op '{self.op}'")
        places = [curve.at for curve in self.curves]
        if places != sorted(set(places)) or (AXES[self.op][0] is None and len(places) > 1):
            raise ValueError(f"the curves of {self.op} must differ in {AXES[self.op][0]}, and rise in it")
        return self

    @property
    def domain(self) -> dict[str, tuple[float, float]]:
        """The sizes between which it was measured, by name."""
        outer, inner = AXES[self.op]
        along = {inner: (min(c.sizes[0] for c in self.curves), max(c.sizes[-1] for c in self.curves))}
        return along if outer is None else {outer: (self.curves[0].at, self.curves[-1].at), **along}
