"""What a hosted model costs by the token."""

from pydantic import BaseModel, ConfigDict, Field


class ApiTier(BaseModel):
    """One price list of a hosted model, in USD per million tokens.

    ``model`` is the catalog key of what is served, None where its weights are not public. A vendor without a price
    for cached input bills it in full; an output price that no source gives stays unknown. ``availability`` is the share
    of requests that the vendor is seen, or promises, to serve.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str
    model: str | None = None
    input_usd_per_million: float = Field(ge=0)
    cached_input_usd_per_million: float | None = Field(None, ge=0)
    output_usd_per_million: float | None = Field(None, ge=0)
    availability: float | None = Field(None, gt=0, le=1)
