"""Commands for a site of a round with masks: `keys` and `unmask`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.options import MaskKey, PlanPath, SiteName, TablesFile, data_option


def keys(
    site: Annotated[str, typer.Argument(metavar="SITE", help="The name of this site.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Folder of both keys; default: the site's private folder."
        ),
    ] = None,
) -> None:
    """Make this site's keys for masks: send the public one to the organiser, before the plan."""
    from collabdm.cli.console import console
    from collabdm.privacy.site_keys import create_keys, private_key_path

    public = create_keys(site, folder)
    console.print(f"{private_key_path(site, folder)}: the private key; it stays here")
    console.print(f"{public}: the public key; send it to the organiser of the round")


def unmask(
    plan: PlanPath,
    site: SiteName,
    missing: Annotated[
        list[str], data_option(help="A site that cannot contribute any more; repeatable.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Path of the unmasking to write.")],
    mask_key: MaskKey = None,
    json_file: TablesFile = None,
) -> None:
    """Answer that other sites are missing, so that the sum of the remaining ones can be opened."""
    from collabdm.cli.console import notes
    from collabdm.cli.running import check_output, print_document
    from collabdm.cli.tables import Tables
    from collabdm.documents.atomic_write import atomic_write
    from collabdm.documents.plan_file import read_plan
    from collabdm.privacy.site_keys import site_key
    from collabdm.rounds.masked import MaskedSite, unmasking_content

    agreed = read_plan(plan)
    check_output(output, plan)
    answering = MaskedSite(agreed, site, site_key(agreed, site, mask_key))
    content = unmasking_content(answering, missing)

    atomic_write(output, content, private=True)
    print_document(output, Tables(json_file))
    names = ", ".join(sorted(set(missing)))
    notes.print(
        f"Before you send {output}: if you know that {names} has sent its contribution, do not "
        f"send it, for the server could then open the contribution of {names}."
    )
