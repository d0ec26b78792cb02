"""The update in C++, for CPUs: SAC's usual members, with products of its own for matrices of a few hundred rows and columns."""

from robotsac.learner.backends.native.native import Native, why_not

__all__ = ["Native", "why_not"]
