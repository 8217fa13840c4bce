"""Programs that run on the nodes: plain Python of the standard library, from version 3.6 on.

They are sent over the connection's standard input and leave nothing behind. Nothing here imports
anything of this package.
"""
