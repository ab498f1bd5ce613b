"""When a learner is updated, and what data it learns from."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from emix.errors import UsageError
from emix.reading import short

# Of a hyperparameter. Larger ones are mistakes, and sizes that are products of two would not have 64 bits.
MOST_WHOLE = 10**12
Source = Literal["replay", "fresh"]
Unit = Literal["episode", "transition"]


@dataclass(frozen=True)
class Plan:
    """The schedule of a learner's updates; a rollout is an episode of each of the run's environments.

    After a rollout that played s environment steps there are ``updates_per_rollout + s * updates_per_step`` updates,
    once there is data for them.

    ==================  ========  ==============  ==========================================================
    method              source    unit            updates
    ==================  ========  ==============  ==========================================================
    QMIX, DOP           replay    episode         so many after every rollout
    MAPPO, PERLA        fresh     episode         one when ``batch_size`` new episodes were played, on them
    FACMAC, ADER        replay    transition      so many for every step played
    ==================  ========  ==============  ==========================================================

    Raises:
        UsageError: a value is out of range, or two contradict each other.
    """

    source: Source = "replay"
    """"replay": drawn from the newest ``buffer_size``; "fresh": each episode is used once, in the order of playing."""
    unit: Unit = "episode"
    """What is stored and drawn: whole episodes, or single transitions."""
    batch_size: int = 32
    """Episodes (or transitions) of an update; updates begin when so many are held."""
    buffer_size: int = 1500
    """Episodes (or transitions) that the replay holds; of no matter for "fresh"."""
    updates_per_rollout: int = 1
    """Updates after each rollout."""
    updates_per_step: int = 0
    """Updates for each environment step of the rollout, made after it."""
    random_steps: int = 0
    """Environment steps at the start whose actions are drawn at random, in place of the actor."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, choices = getattr(self, field.name), {"source": get_args(Source), "unit": get_args(Unit)}
            if field.name in choices:
                if value not in choices[field.name]:
                    raise UsageError(f"{field.name} expects one of {', '.join(choices[field.name])}, got {value!r}")
                continue
            least = 1 if field.name in ("batch_size", "buffer_size") else 0
            if type(value) is not int or value < least:
                raise UsageError(f"{field.name} expects an integer of at least {least}, got {short(value)}")
            if value > MOST_WHOLE:
                raise UsageError(f"{field.name} expects at most {MOST_WHOLE:,}, got {short(value)}")
        if self.updates_per_rollout + self.updates_per_step == 0:
            raise UsageError("updates_per_rollout and updates_per_step are both 0, so that nothing would be learned")
        if self.source == "replay" and self.buffer_size < self.batch_size:
            raise UsageError(f"buffer_size expects at least batch_size ({self.batch_size}), got {self.buffer_size}")
        if self.source == "fresh" and (self.unit, self.updates_per_rollout, self.updates_per_step) != ("episode", 1, 0):
            raise UsageError(
                f"source fresh expects unit episode, updates_per_rollout 1 and updates_per_step 0: every episode is "
                f"used in one update, got {self.unit}, {self.updates_per_rollout} and {self.updates_per_step}; "
                f"set the learner's epochs where it has them"
            )

    def updates(self, steps: int) -> int:
        """Updates after a rollout that played so many environment steps."""
        return self.updates_per_rollout + steps * self.updates_per_step

    def require_episodes(self) -> None:
        """For agents that remember what they saw.

        Raises:
            UsageError: single transitions are to be drawn.
        """
        if self.unit != "episode":
            raise UsageError(f"plan.unit: agents with a memory learn from episodes: expected episode, got {self.unit}")
