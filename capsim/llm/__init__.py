"""Language models: shapes, parameters, and what their attention stores and reads per token."""

from capsim.llm.attention import Attention
from capsim.llm.model import DenseLayers, Experts, ModelSpec, WeightFormat
from capsim.llm.stream import KVStream

__all__ = ["Attention", "DenseLayers", "Experts", "KVStream", "ModelSpec", "WeightFormat"]
