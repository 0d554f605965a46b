"""`python -m fa_core.cli`: `fa`, where the environment's folder of programs is not at hand."""

from fa_core.cli import main

main()
