"""The spool: a durable, bounded store of records on the robot."""

from robotsac.spool.store import Spool
from robotsac.spool.tables import BootInfo

__all__ = ["BootInfo", "Spool"]
