"""The composition root: the one place that builds objects from settings and wires the roles.

Nothing is built at import, and a process loads what its role needs: a worker has no web framework. Everything that is
opened here is closed here, in the opposite order.
"""
