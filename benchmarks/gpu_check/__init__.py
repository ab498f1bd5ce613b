"""``make gpu-check``: everything that is to be done on a GPU, behind one command, in eight minutes, without a network.

Until the part ``build`` has run, only Python's standard library, pip and torch need to be there.
"""
