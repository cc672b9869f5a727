"""Which channels of a model belong together: what must be cut for one channel to be gone."""

from anynorm.surgery.channels.analyse import Channels, Use, analyse

__all__ = ["Channels", "Use", "analyse"]
