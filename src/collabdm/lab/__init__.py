"""The laboratory: complete rounds simulated on one machine, scored and compared.

    experiment   the settings of a simulation, `settings` their sources
    simulate     split, sites, server and scores; `curves` and `watched` score it on its way
    results      records of results.json, `results_file` the file that a simulation resumes from
    demo         the built-in demonstrations
    reproduce    published tables and figures
"""
