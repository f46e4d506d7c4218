"""Running test files on a Ray cluster.

Who does what: ``engine`` is in ``rp run`` and asks for one file after the other, as ``planning``
and ``assigning`` decide; ``driver`` is a process beside it that speaks to Ray and to nobody else,
at the other end of a ``link``; Ray finds a node with the resources; ``host`` runs the file there,
as the local engine does.
"""
