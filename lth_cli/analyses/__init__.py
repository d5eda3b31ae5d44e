"""Questions asked of finished states: a folder each, found by its name.

A folder holds `settings.py` (`Settings`: what can be asked, with a `name` that is the folder's), `study.py` (`prepare`:
checks a question and returns the `Study` that answers it), mathematics of its own, and `figure.py` (`draw`) where there
is something to draw. Settings and figures import no study. What several analyses share lies beside the folders.
"""
