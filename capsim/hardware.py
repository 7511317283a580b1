"""Devices and nodes: what a chip can do, and how many of them stand in a box."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt

from capsim import units


def _quantity(unit: str) -> BeforeValidator:
    """Reads a number in SI, or text with a unit such as '80 GiB'."""
    return BeforeValidator(lambda v: units.parse(v, unit), json_schema_input_type=float | str)


Seconds = Annotated[float, _quantity("s"), Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, _quantity("s"), Field(gt=0, allow_inf_nan=False)]
Bytes = Annotated[float, _quantity("bytes"), Field(gt=0, allow_inf_nan=False)]
BytesPerSecond = Annotated[float, _quantity("bytes_per_s"), Field(gt=0, allow_inf_nan=False)]
Flops = Annotated[float, _quantity("flops"), Field(gt=0, allow_inf_nan=False)]
Watts = Annotated[float, _quantity("w"), Field(ge=0, allow_inf_nan=False)]

Precision = Literal["bf16", "fp8", "fp4"]


class Device(BaseModel):
    """One accelerator. Arithmetic rates are dense; ``link_bytes_per_s`` is one direction."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    kind: Literal["gpu", "mac", "npu", "cpu"]
    memory_bytes: Bytes
    usable_fraction: float = Field(1.0, gt=0, le=1)
    memory_bytes_per_s: BytesPerSecond
    bf16_flops: Flops
    fp8_flops: Flops | None = None
    fp4_flops: Flops | None = None
    link_bytes_per_s: BytesPerSecond | None = None
    power_w: Watts

    def flops(self, precision: Precision) -> float:
        """Dense arithmetic rate; a precision the chip lacks runs at the next wider one's."""
        if precision == "fp4" and self.fp4_flops is not None:
            return self.fp4_flops
        if precision != "bf16" and self.fp8_flops is not None:
            return self.fp8_flops
        return self.bf16_flops

    def computes_in(self, precision: Precision) -> bool:
        return {"fp4": self.fp4_flops, "fp8": self.fp8_flops, "bf16": self.bf16_flops}[precision] is not None


class Node(BaseModel):
    """A box of ``devices`` like devices that is bought, rented and lost as one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    device: str
    devices: PositiveInt
    engine: str
