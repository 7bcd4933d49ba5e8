"""The settings of an audit: numbers of images, rounds, networks and iterations."""

from typing import Annotated

from pydantic import Field

from collabdm.documents.frozen_model import FrozenModel


class AuditSettings(FrozenModel):
    """The size of an audit.

    - `members`: images of each class that a round uses; as many others are not used, and as many
      again are the attacker's reference.
    - `shadows`: R, the rounds with which the scores of a round are calibrated. There are R + 1
      rounds in all; each is attacked once, with the others as its shadows.
    - `networks`, `epochs`: the networks trained on the set of each round, with the recipe `short`.
    - `canaries`: the images of each kind that are inserted; 0 skips this attack.
    - `small_class`: the size of the class that is reconstructed from its means; 0 skips it.
    - `iterations`, `restarts`: of the reconstruction.
    - `seed`: of the candidates, the members and the networks.
    """

    members: Annotated[int, Field(ge=2, le=100_000)] = 100
    shadows: Annotated[int, Field(ge=0, le=1000)] = 7
    networks: Annotated[int, Field(ge=1, le=1000)] = 1
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 50
    canaries: Annotated[int, Field(ge=0, le=1000)] = 5
    small_class: Annotated[int, Field(ge=0, le=1000)] = 5
    iterations: Annotated[int, Field(ge=1, le=10**7)] = 500
    restarts: Annotated[int, Field(ge=1, le=100)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**53)] = 0
