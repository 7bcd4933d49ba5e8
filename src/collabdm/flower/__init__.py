"""Run a round over Flower, which carries the same documents between machines.

    server -- plan --> every node
    node -- contribution, or a refusal --> server

Flower transports bytes without interpreting them: a contribution that arrives is identical to the
file that `collabdm contribute` writes. `site` is the ClientApp and `server` the ServerApp; `wire`
defines their messages, and `settings` their configuration. `collecting` asks the nodes and stores
their answers; `connection` checks a site's connection to the server before a round.

This package needs the extra `collabdm[flower]`.

Reference: D. J. Beutel et al., "Flower: a friendly federated learning framework", 2020.
"""

from collabdm.openmp import wait_passively

wait_passively()
