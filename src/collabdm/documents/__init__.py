"""The documents exchanged in a round, and their files.

    Plan  ->  each site: Contribution  ->  anyone: DistilledSet

| document | class | file format | read and written by |
|---|---|---|---|
| Plan | `plan.Plan` | JSON | `plan_file` |
| Contribution | `contribution.Contribution` | safetensors | `contribution_file` |
| DistilledSet, or DistilledSteps | `outcomes` | safetensors | `outcome_files` |

The third outcome, `outcomes.DistilledModel`, is read and written by
`collabdm.scoring.distilled_model_file`, because building its network is the only way to know which
weights it needs.

All documents are frozen. docs/format.md specifies every file, and the checks that a reader must
make. `codec` contains the parts that the safetensors files share.
"""
