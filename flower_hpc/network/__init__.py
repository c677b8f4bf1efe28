"""Who can reach what: private networks, the sockets that lead into them, and the gateway for nodes beyond.

``endpoint``  what an address is, and how it is listened on and dialled
``forward``   passes bytes between endpoints, unread
``enclosed``  runs a command in a network of its own, with forwards into it and out of it
``gateway``   the only listener that other hosts see: passes Flower's Fleet methods and nothing else
``relay``     passes TCP on at a login node
"""
