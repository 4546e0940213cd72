"""The conformance kit: does what a plugin registers keep the promises that everything else relies on?

`t2i plugins check NAME` on the command line, `run_checks(find(NAME))` in Python, and in a plugin's own tests the
fixture `t2i_check` (t2i.core.kit.conformance.pytest_plugin, which pytest finds by itself):

    @pytest.mark.t2i("my-model")
    def test_conformance(t2i_check):
        t2i_check()

catalogue.py lists the checks of each kind of thing; the other files hold them, one check a function, whose docstring
says what it holds. A check returns nothing, or raises `Failed` or `Skipped`.
"""

from __future__ import annotations
