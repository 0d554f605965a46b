"""Where releases, the ledger and the transparency log are kept. Start at `open_store`."""

from fa_core.privacy.ledger_rows import Declaration
from fa_core.store.catalogue import Entry, Failure, Query
from fa_core.store.chain import Row
from fa_core.store.files import ESTIMATES_SCHEMA, labels
from fa_core.store.store import DEFAULT, Store, open_store, shown_as
from fa_core.store.translog import Cosigner, Inclusion, LogEntry

__all__ = [
    "DEFAULT",
    "ESTIMATES_SCHEMA",
    "Cosigner",
    "Declaration",
    "Entry",
    "Failure",
    "Inclusion",
    "LogEntry",
    "Query",
    "Row",
    "Store",
    "labels",
    "open_store",
    "shown_as",
]
