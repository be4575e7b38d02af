"""How an answer is drawn from a model's probabilities, each knob with its teaching sentence.

The same knobs serve the Try panel, test cases and the command line; knows no model.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from tunebook.errors import RecipeInvalid
from tunebook.recipe import Part, knob

_GUIDE = "https://huggingface.co/docs/transformers/generation_strategies"


class Sampling(Part):
    """How the next token is chosen."""

    temperature: float = knob(
        0.0,
        title="Temperature",
        ge=0.0,
        le=2.0,
        step=0.1,
        description="0 always takes the likeliest token, so the answer is the same each time. "
        "Higher is more varied; above 1 it soon stops making sense.",
        link=_GUIDE,
    )
    max_new_tokens: int = knob(
        256,
        title="Most tokens",
        ge=1,
        le=8192,
        step=16,
        unit="tokens",
        description="The answer is cut here if the model has not ended it before.",
    )
    top_p: float = knob(
        1.0,
        title="Top p",
        gt=0.0,
        le=1.0,
        step=0.05,
        description="Choose only among the likeliest tokens that together have this probability. "
        "1 leaves all. Has no effect at temperature 0.",
        link=_GUIDE,
        advanced=True,
    )
    top_k: int = knob(
        0,
        title="Top k",
        ge=0,
        le=1000,
        step=5,
        description="Choose only among this many likeliest tokens; 0 leaves all. "
        "Has no effect at temperature 0.",
        advanced=True,
    )
    min_p: float = knob(
        0.0,
        title="Min p",
        ge=0.0,
        le=1.0,
        step=0.05,
        description="Leave out tokens less likely than this share of the likeliest one's probability; "
        "0 leaves all. Has no effect at temperature 0.",
        advanced=True,
    )
    repetition_penalty: float | None = knob(
        None,
        title="Repetition penalty",
        ge=0.5,
        le=2.0,
        step=0.05,
        description="Above 1, what was said before becomes less likely. "
        "Empty: what the model's own settings say, usually 1, which changes nothing.",
        advanced=True,
    )
    seed: int | None = knob(
        None,
        title="Seed",
        ge=0,
        le=2**31 - 1,
        description="The same seed gives the same answer. Empty: another one each time. "
        "Has no effect at temperature 0.",
        advanced=True,
    )

    @classmethod
    def of(cls, **values: Any) -> Sampling:
        """Checked settings; `Sampling.of(temperature=0.7, seed=1)`.

        Raises:
            RecipeInvalid: a name is unknown, or a value out of its range.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            raise RecipeInvalid(
                f"The sampling setting `{name}` cannot be {first['input']!r}.",
                f"{first['msg']}.",
                f"known are {', '.join(cls.model_fields)}, each in its range.",
            ) from None

    def arguments(self) -> dict[str, Any]:
        """As keyword arguments of `Run.stream` and `Run.answer`."""
        return self.model_dump()
