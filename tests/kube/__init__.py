"""A stand-in for a Kubernetes cluster: a server, its controllers, and nodes whose pods are real processes.

Not named ``kubernetes``: pytest puts this folder's parent on the path, which would hide the client's package.
"""
