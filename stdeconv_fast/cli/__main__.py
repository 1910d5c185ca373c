"""``python -m stdeconv_fast.cli``."""

from . import main

main(prog_name="stdeconv-fast")
