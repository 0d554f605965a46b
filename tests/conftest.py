"""What every room's tests stand on."""

from hypothesis import settings

# The same cases in every run, so that no run is red by luck; `scripts/test --all` draws new ones.
settings.register_profile("same", derandomize=True, database=None)
settings.register_profile("new", database=None, max_examples=1000)
settings.load_profile("same")
