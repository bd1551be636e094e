"""StaticRecall: remember, through static, a faint texture that was seen for three frames; one action in twelve pays.

The reward comes late, seldom (an eighth of the time for a random policy) and on one frame only, so it says little about
which of a thousand noisy pixels to keep. Every frame says something: whoever can tell which frames follow has found the
texture and kept it. The task asks whether a contrastive loss on the same encoder and core speeds up what reward alone
teaches slowly.
"""

import numpy as np

from actors.envs.hidden_class import SIDE, HiddenClassVector, One, squares

SHOWN = [0, 1, 2, 9, 10, 11]
"""Frames on which the texture is seen."""


def textures() -> np.ndarray:
    """The fixed patterns, one per action, (actions, SIDE, SIDE)."""
    return squares(StaticRecallVector.actions, SIDE // 4, StaticRecallVector.contrast)


class StaticRecallVector(HiddenClassVector):
    """n environments of the task; see the module for what it asks and why it is hard.

    An episode is twelve frames, a decision on each, and a final observation:

    | frame | what is seen |
    |---|---|
    | 0-2 | static and the texture of the hidden class |
    | 3-7 | static |
    | 8 | static and white bars at top and bottom: the query. Reward 1 if the action is the class, else 0 |
    | 9-11 | static and the same texture |
    | 12 | static: the final observation, after a termination |

    With static from 0 to 160 and a texture that adds 0 or 40, the texture hides within one pixel; over the 16 pixels of
    a square and several frames it does not. Chance is 1/8, and a policy that remembers gets 1.

    All environments begin with frame 0 and stay in step, because an evaluation counts the first episode after a reset,
    which must be like any other. Blocks of rows still begin in every phase unless their length is a multiple of 13.

    Args:
        num_envs: n.
        static: the largest value of a pixel of static.
    """

    actions, classes, frames, query, contrast = 8, 8, 12, 8, 40

    def __init__(self, num_envs: int = 1, static: int = 160):
        super().__init__(num_envs, static)
        self._textures = textures()

    def _draw(self, image: np.ndarray) -> None:
        shown = np.flatnonzero(np.isin(self._frame, SHOWN))
        image[shown] += self._textures[self._hidden[shown]]


class StaticRecall(One):
    """One environment of the task, for `gymnasium.make`.

    Args:
        static: the largest value of a pixel of static.
    """

    def __init__(self, static: int = 160) -> None:
        super().__init__(StaticRecallVector(1, static))
