"""The round over Flower: the same documents, carried between machines.

    server -- plan --> every node
    node -- contribution, or a refusal --> server

Flower transports bytes and does not interpret them: a contribution that arrives is the file that
`collabdm contribute` writes, to the byte. `site` is the ClientApp and `server` the ServerApp;
`wire` defines their messages, `settings` their configuration. `collecting` asks the nodes and
stores their answers; `connection` checks a site's connection to the server before a round.

Needs the extra `collabdm[flower]`. Reference: D. J. Beutel et al., "Flower: a friendly federated
learning framework", 2020.
"""
