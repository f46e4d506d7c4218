"""Running test files on a Ray cluster.

Who does what: ``engine`` is in ``rp run`` and decides (``assigning``) which file is asked for next;
``driver`` is a process beside it that speaks to Ray and to nobody else; Ray finds a node with the
resources; ``host`` runs the file there, as the local engine does.
"""
