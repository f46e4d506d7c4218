"""One file per backend, one contract.

A probe module has a function ``probe(machine: Machine) -> ProbeResult``. It

- looks first for something cheap that rules the backend out (a driver's file, a package), and
  starts no child process where that is missing;
- touches the machine only through ``machine``, and imports no vendor's library itself: what can
  crash or hang runs in a child with a deadline (``hardware_detection.proofs``);
- says "available" only after a computation ran on a device and its result was checked;
- tells apart "absent" (not here), "unusable" (here, but nothing can compute on it) and "error"
  (could not be found out), with a reason of one sentence that names the remedy;
- names the source of each fact;
- raises nothing for what it finds. An exception is a fault of ours: the detector turns it into
  an "error" of that backend alone.
"""

from __future__ import annotations

from hardware_detection import names

#: Backend -> the module of its probe.
PROBES = {name: f"hardware_detection.probes.{name}" for name in names.HARDWARE_NAMES}
