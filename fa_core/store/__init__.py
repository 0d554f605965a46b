"""Where releases, the ledger and the transparency log are kept. Start at `open_store`."""

from fa_core.privacy.ledger_rows import Declaration
from fa_core.store.annotations import Annotation
from fa_core.store.catalogue import DEFAULT, Entry, Failure, Query, Refusal, verify_commands
from fa_core.store.chain import Row
from fa_core.store.files import ESTIMATES_SCHEMA, labels
from fa_core.store.store import Store, open_store, shown_as
from fa_core.store.translog import Cosigner, Inclusion, LogEntry

__all__ = [
    "DEFAULT",
    "ESTIMATES_SCHEMA",
    "Annotation",
    "Cosigner",
    "Declaration",
    "Entry",
    "Failure",
    "Inclusion",
    "LogEntry",
    "Query",
    "Refusal",
    "Row",
    "Store",
    "labels",
    "open_store",
    "shown_as",
    "verify_commands",
]
