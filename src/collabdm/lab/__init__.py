"""The laboratory: complete rounds simulated on one machine, scored and compared.

    experiment   the settings of a simulation; `settings` reads them
    simulate     the data of a round, its sites, server and scores
    curves       scores along the refinement; `watched`, of predictors on the way
    results      the records of results.json; `results_file` writes and resumes them
    demo         the built-in demonstrations
    reproduce    published tables and figures
"""
