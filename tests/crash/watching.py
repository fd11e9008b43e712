"""The file layer of the crash suites: see `stepstore.log.watched_files`."""

from __future__ import annotations

from stepstore.log.watched_files import CHANGING as CHANGING
from stepstore.log.watched_files import Before as Before
from stepstore.log.watched_files import Call as Call
from stepstore.log.watched_files import Stopped as Stopped
from stepstore.log.watched_files import WatchedFile as WatchedFile
from stepstore.log.watched_files import WatchedFiles as WatchedFiles
