"""EB-Sampler: entropy-bounded unmasking, 2505.24857 (Eq. 2, Algorithm 1)."""

from dataclasses import dataclass

from mdmbench.base import Choice
from mdmbench.samplers.knobs import at_least, one_of
from mdmbench.step import Proxy, Step


@dataclass(frozen=True)
class EB:
    """The longest surest-first prefix with (sum - max) of its entropies <= gamma, in nats.

    The proxy orders; entropy is what is bounded, whatever the proxy. sum - max bounds the
    multi-information of the positions committed together. gamma = 0 commits one position a step
    (unless entropies are exactly 0), gamma = inf all.
    """

    gamma: float = 0.1
    proxy: Proxy = "entropy"

    def __post_init__(self) -> None:
        at_least("gamma", self.gamma, 0)
        one_of("proxy", self.proxy, Proxy)

    def __call__(self, step: Step) -> Choice:
        order = step.order(step.score(self.proxy))
        h = step.entropy.gather(1, order)
        # Appending h to a prefix with maximum m raises sum - max by min(h, m): summed like this the
        # bound never suffers the cancellation of sum - max between large and tiny entropies.
        rise = h.clone()
        rise[:, 0] = 0
        rise[:, 1:] = h[:, 1:].minimum(h.cummax(1).values[:, :-1])
        return Choice(step.pick(order, rise.cumsum(1) <= self.gamma))
