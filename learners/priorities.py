"""Priorities: what a learner step tells the store about the windows that it drew."""

from collections.abc import Mapping

import numpy as np

from learners.objective import Batch, Term
from learners.update import Priorities, UpdateError


class TermSizes:
    """How large a term was on each window, over the minibatches of a learner step.

    Prioritised experience replay (Schaul et al. 2016, https://arxiv.org/abs/1511.05952) with the size of any term in
    the place of the temporal-difference error.

    Args:
        tags: by table, the tag of the term that counts.
    """

    def __init__(self, tags: Mapping[str, str]) -> None:
        self._tags = dict(tags)
        self._seen: dict[str, list[list[np.ndarray]]] = {}

    def note(self, table: str, batch: Batch, terms: Mapping[str, Term]) -> None:
        """Take note of a minibatch.

        Raises:
            UpdateError: there is no such term, or the table is not prioritised.
        """
        if table not in self._tags:
            return
        tag = self._tags[table]
        if tag not in terms or "item" not in batch or batch["item"].ndim < 2:
            wanted = f"a term {tag!r} of {sorted(terms)} on a table that goes by priority"
            raise UpdateError(f'priorities of table "{table}" are to follow {wanted}: correct the tag or the table')
        term = terms[tag]
        seen = (batch["item"], term.value.detach().abs(), term.mask)
        self._seen.setdefault(table, []).append([part.flatten().cpu().numpy() for part in seen])

    def take(self) -> Priorities:
        """Each window's mean size over its rows, by table; forgets them."""
        priorities = {
            table: _means(*map(np.concatenate, zip(*seen, strict=True))) for table, seen in self._seen.items()
        }
        self._seen = {}
        return priorities


def _means(items: np.ndarray, sizes: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each window once, and its mean size where it was trained on at all."""
    distinct, place = np.unique(items, return_inverse=True)
    counts = np.bincount(place, mask)
    means = np.bincount(place, sizes * mask) / np.maximum(counts, 1)
    return distinct[counts > 0], means[counts > 0]
