"""Privacy: what a contribution releases, and how less of it is released.

    release        the numbers that leave a site for each number it holds; the classes withheld
    masks, ...     secure aggregation: the server learns sums over all sites (Bonawitz et al., 2017)
    gaussian, ...  differential privacy of each image (Dwork et al., 2006)

`lab.audit` attacks a round in the laboratory, and measures what each of these protects.
"""
