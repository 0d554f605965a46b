"""The examples in docstrings are run: a public function's first explanation may not be wrong."""

import doctest
from importlib import import_module

import pytest

MODULES = (
    "canonical_json", "estimate.compare", "merkle", "metrics.filters", "metrics.intervals",
    "metrics.joint", "metrics.kind", "plan.document", "plan.schema", "plan.signing", "privacy.accounting",
    "privacy.bounding", "privacy.distributed", "privacy.ledger", "privacy.zcdp", "secagg", "values",
)  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    found = doctest.testmod(import_module(f"fa_core.{name}"), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


def test_a_wrong_example_is_found() -> None:
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    runner = doctest.DocTestRunner(verbose=False)
    runner.run(wrong, out=lambda text: None)
    assert runner.failures == 1
