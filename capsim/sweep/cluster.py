"""A Dask cluster as an executor. Its workers need capsim in the same version as here."""

from concurrent.futures import Executor

from capsim.errors import ScenarioError

RETRIES = 3
"""How often a point is tried again whose worker was lost."""


def executor_of(address: str) -> Executor:
    """The executor of the cluster whose scheduler is at ``address``, such as tcp://host:8786.

    Raises
    ------
    ScenarioError
        Dask is not installed, or nobody answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        hint = "pip install 'capsim[cluster]'"
        raise ScenarioError.one("needs dask.distributed", path=f"--cluster {address}", hint=hint) from error
    try:
        client = Client(address, timeout="10s", set_as_default=False)
    except (OSError, ValueError) as error:
        raise ScenarioError.one(f"no scheduler answers: {error}", path=f"--cluster {address}") from error
    executor: Executor = client.get_executor(pure=False, retries=RETRIES)
    return executor
