"""What a tester talks about: one class per noun, in the style of testinfra's modules.

>>> slurm.nodes["virtual-gpu01"].cpus
2
>>> slurm.run("hostname", nodes=2)

Each is loaded when it is first used: a run that asks for no cluster does not wait for them. What
there is stands in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
