"""Other people's measurements, turned into measurements files."""

from capsim.importers.imported import Imported
from capsim.importers.llama_bench import import_llama_bench
from capsim.importers.llmservingsim import import_llmservingsim
from capsim.importers.nvidia import import_nvidia, nvidia_tables
from capsim.importers.vidur import import_vidur
from capsim.importers.vllm_bench import import_vllm_bench

__all__ = [
    "Imported", "import_llama_bench", "import_llmservingsim", "import_nvidia", "import_vidur", "import_vllm_bench",
    "nvidia_tables",
]  # fmt: skip
