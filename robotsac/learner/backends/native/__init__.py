"""The update in C++, for CPUs: SAC's usual members, with products of its own for matrices of a few hundred rows and columns."""

from robotsac.learner.backends.native.build import has_bfloat16
from robotsac.learner.backends.native.native import Native, why_not

__all__ = ["Native", "has_bfloat16", "why_not"]
