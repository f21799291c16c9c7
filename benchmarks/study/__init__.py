"""The study: which combination of pieces to use when, measured on a miniature world of real texts.

One question a file; `python -m benchmarks.study` from the repository root runs them all (`--quick`
for a look).
"""

from tequio.cli.environment import prepare_process

prepare_process()  # of each worker too: it has to come before torch is loaded
