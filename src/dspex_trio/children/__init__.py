"""Child processes: started, called over a socket, watched, killed, replaced. Knows nothing of trials or DSPy."""

from dspex_trio.children.exchange import ChildFailed, ChildLost, Exchange
from dspex_trio.children.forking import CAN_FORK
from dspex_trio.children.pool import Children, open_children
from dspex_trio.children.process import Child

__all__ = ["CAN_FORK", "Child", "ChildFailed", "ChildLost", "Children", "Exchange", "open_children"]
