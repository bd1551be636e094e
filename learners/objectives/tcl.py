"""TCL: an observation must tell which ones follow it (temporal contrast; Yang, Nachum, arXiv:2102.05815)."""

from learners.objectives.cpc import Cpc


def tcl(steps: int = 1, *, momentum: bool = False, shuffled: bool = False, group: str = "contrast") -> Cpc:
    """CPC without a context: features of row t against those of rows t+1 to t+K, one matrix for each k.

    The matrices start as the identity, so at first features are compared as they are.

    Args:
        steps: K.
        momentum: compare with a slow copy's features, through a residual layer of 256 on the learning side; an
            `Average("encoder", 0.05)` must move the copy.
        shuffled: the control with pairs that mean nothing.
        group: prefix of its metrics' tags.
    """
    return Cpc(
        steps=steps,
        features=0,
        anchor="features",
        momentum=momentum,
        hidden=256 if momentum else 0,
        shuffled=shuffled,
        group=group,
    )
