"""The conformance kit: checks that a plugin keeps the promises on which the rest of t2i relies.

Run it with `t2i plugins check NAME` on the command line, with `run_checks(find(NAME), FOLDER)` in
Python, or in a plugin's own tests with the fixture `t2i_check`. Pytest finds that fixture by itself
(t2i.core.kit.conformance.pytest_plugin):

    @pytest.mark.t2i("my-model")
    def test_conformance(t2i_check):
        t2i_check()

catalogue.py lists the checks of each kind of plugin. The other files implement them, one function a
check. The first paragraph of its docstring is the promise, which is shown when the check fails. A
check returns nothing, or raises `Failed` or `Skipped`.
"""

from __future__ import annotations
