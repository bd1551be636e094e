"""Learners: models, objectives, updates. They read batches from replay and publish weights; they know no actor.

`Policy.load` is what is left when learning is over: a trained policy to act with.
"""

from learners.trained import Policy

__all__ = ["Policy"]
