"""The laboratory: complete rounds simulated on one machine, scored and compared.

- `experiment` defines the settings of a simulation; `settings` reads them.
- `round_data` reads the data of a round and splits it over sites.
- `simulate` runs the sites and the server of a round, and scores the outcome.
- `curves` stores the images along the refinement, and `watched` tests intermediate predictors.
- `results` defines the records of results.json; `results_file` writes and resumes them.
- `audit` attacks what rounds release, to measure their privacy.
- `demo` contains the built-in demonstrations.
- `reproduce` reproduces published tables and figures.
"""
