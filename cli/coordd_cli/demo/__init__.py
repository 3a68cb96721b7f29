"""`coordctl demo`: a whole cluster on this host, shown step by step.

Everything is done as an operator does it, by separate processes whose command lines are printed. The demo itself opens no
module of coordd but what starts processes and asks DNS. `stage.py` is the place where it happens, `steps.py` the play,
`report.py` what the audience gets.
"""
