"""Ways to compute the same update: as it is written, in C++, compiled by torch, or replayed by a GPU as one graph."""

from robotsac.learner.backends.backend import Backend, Eager
from robotsac.learner.backends.choice import Chosen, choose_backend

__all__ = ["Backend", "Chosen", "Eager", "choose_backend"]
