"""Policy distributions, one file each, behind one protocol (``head``)."""

from robotsac.learner.heads.beta import Beta
from robotsac.learner.heads.deterministic import Deterministic
from robotsac.learner.heads.gaussian import TanhGaussian
from robotsac.learner.heads.head import Draw, Head
from robotsac.learner.heads.mixture import TanhMixture

__all__ = ["Beta", "Deterministic", "Draw", "Head", "TanhGaussian", "TanhMixture"]
