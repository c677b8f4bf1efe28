"""Who can reach what: private networks, the sockets that lead into them, and the gateway for nodes beyond.

``endpoint``  what an address is, and how it is listened on and dialled
``forward``   passes bytes between endpoints, unread
``enclosed``  runs a command in a network of its own, with forwards into it and out of it
``namespace`` how Linux gives an unprivileged process such a network, and whether it does here
``gateway``   the only listener that other hosts see: passes Flower's Fleet methods and nothing else
``fleet``     which methods and headers those are; ``bodies`` and ``patience`` bound what a caller can cost
``relay``     passes TCP on at a login node
"""
