"""The round over Flower: the same documents, carried between machines.

    server  --  Plan  -->  every node;  node  --  Contribution, or a refusal  -->  server

Flower (D. J. Beutel et al., "Flower: a friendly federated learning framework", 2020) carries bytes and knows
nothing of them: what arrives is the file that `collabdm contribute` writes, to the byte. `site` is the
ClientApp, `server` the ServerApp, `collecting` what the server does with the answers; docs/deploy.md says how
to start them. Needs the extra `collabdm[flower]`.
"""
